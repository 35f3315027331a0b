"""The dashboard in a real browser: what it shows, that it follows and fits, and that strangers' text stays text."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm_power.daemons.admin_desk import AdminDesk
from slurm_power.daemons.controller_config import ControllerConfig
from slurm_power.daemons.controller_view import ControllerView, Event, FastView, Picture
from slurm_power.daemons.live_views import new_trail
from slurm_power.testing.fake_clock import FakeClock
from slurm_power.testing.fake_journal import FakeJournal
from slurm_power.web.tokens import AdminTokens
from tests.web.chromium import Page, chromium
from tests.web.made_up_site import HOSTILE, SLOT_S, MadeUpSite
from tests.web.served import Served, served

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

TOKEN = "5f8a1c0e9b7d42638f1e0a9c"
POOLS = [
    {"pool": "chat/A", "state": "serving", "draw_watts": 9532.0, "budget_watts": 11_000.0, "clock_mhz": 1410,
     "slack_s": 0.42, "joules_per_token": 1.83, "tokens_per_s": 5210.0},
    {"pool": "batch/B", "state": "paused", "draw_watts": 610.0, "budget_watts": None, "clock_mhz": None,
     "slack_s": 5400.0, "joules_per_token": 0.94, "tokens_per_s": 0.0},
]  # fmt: skip


def site(nodes: int = 16) -> MadeUpSite:
    """As of now: the clock of the page goes on from the start of this slot."""
    return MadeUpSite(nodes=nodes, wall_s=time.time, start_wall_s=time.time() // SLOT_S * SLOT_S, pools=POOLS)


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def small() -> Iterator[Served]:
    with served(site()) as running:
        yield running


@pytest.fixture
def opened(page: Page, small: Served) -> Iterator[Page]:
    """The page of a site of 16 nodes, with every part shown; nothing was refused or broke meanwhile."""
    page.errors()
    page.open(small.url)
    for selector, text in (("#tiles", "Bill so far"), ("#jobs", "running"), ("#pools", "chat"), ("#bill", "Total")):
        page.wait_for_text(text, selector)
    page.wait_for_text("16 nodes, 128 GPUs", "#heat-count")
    yield page
    assert page.errors() == []


def test_it_shows_the_site_its_jobs_and_why(opened: Page) -> None:
    tiles = opened.text("#tiles")
    for text in (
        "Grid import",
        "kW",
        "Battery charge",
        "64",
        "health 97 %",
        "gives 12.8 kW",
        "of target",
        "projected EUR",
    ):
        assert text in tiles, text
    assert "node gpu0003: its agent does not report" in opened.text("#troubles")
    jobs = opened.text("#jobs")
    assert "480 W per GPU: 21.3 kW less are needed" in jobs
    assert "waits for watts: asks watts:14600" in jobs
    assert "not before" in jobs
    assert "Refused: Access/permission denied" in opened.text("#feed")
    assert "1.83 J/token" in opened.text("#pools")
    assert "maximum demand" in opened.text("#bill")


def test_every_time_has_its_zone_and_every_axis_its_unit(opened: Page) -> None:
    zone = opened.run("return new Intl.DateTimeFormat('en-GB', {timeZoneName: 'short'}).formatToParts()"
                      ".find((part) => part.type === 'timeZoneName').value")  # fmt: skip
    for selector in ("#clock", "#feed time", "#plan-note", "#bill-period"):
        assert zone in opened.text(selector), selector
    drawn = opened.run("return [...document.querySelectorAll('.uplot canvas')].map((one) => one.width * one.height)")
    assert len(drawn) == 3
    assert all(drawn)


def test_ages_grow_while_one_watches(opened: Page) -> None:
    before = opened.text('[data-tile="Target"] .age')
    opened.wait(lambda: opened.text('[data-tile="Target"] .age') != before, "the age stands still")


def test_it_follows_the_site_without_being_asked(opened: Page, small: Served) -> None:
    small.site.import_watts = 123_400.0
    small.site.failures = {"pcs": "no answer within 2 s"}
    small.site.decided.append(Event(time.time(), "uncap", "job 4002", "the peak is over"))
    opened.wait_for_text("123", '[data-tile="Grid import"] .value')
    opened.wait_for_text("pcs: no answer within 2 s", "#troubles")
    opened.wait_for_text("uncap job 4002", "#feed li")
    small.site.failures = {}


def test_a_strangers_job_name_stays_text(opened: Page) -> None:
    assert HOSTILE in opened.text("#jobs")
    assert opened.run("return document.title") == "slurm-power"
    assert opened.run("return document.querySelectorAll('#jobs img, #jobs script').length") == 0


def test_markup_cannot_be_made_of_text_even_by_a_mistake(opened: Page) -> None:
    refused = opened.run(
        "try { document.body.insertAdjacentHTML('beforeend', '<b>x</b>'); } catch (error) { return error.name; }"
    )
    assert refused == "TypeError"
    assert len(opened.errors()) == 1, "the browser says so"


def test_nothing_comes_from_elsewhere(opened: Page, small: Served) -> None:
    names = opened.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert len(names) > 10
    assert [name for name in names if not name.startswith(small.url)] == []


def test_pointing_at_a_gpu_names_it_and_who_capped_it(opened: Page) -> None:
    opened.run(
        "const canvas = document.getElementById('heat'); const box = canvas.getBoundingClientRect();"
        "const at = {clientX: box.left + 8, clientY: box.top + 24};"
        "canvas.dispatchEvent(new PointerEvent('pointermove', at))"
    )
    detail = opened.text("#heat-detail")
    assert "gpu0001, GPU-00000b1c-" in detail
    assert "set by" in detail
    assert "W" in detail
    for choice, unit in (("heat", "°C"), ("cap", "700 W"), ("source", "the plan (")):
        opened.run("document.querySelector(`[data-choice=${arguments[0]}]`).click()", choice)
        assert unit in opened.text("#heat-legend")
    opened.run("document.querySelector('[data-choice=draw]').click()")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_both_themes_are_readable(opened: Page, dark: bool) -> None:
    opened.screenshot("dashboard-dark" if dark else "dashboard", width=1440, dark=dark)
    for selector in ("h2", ".tile .value", ".tile .under", "#jobs td.why", "#feed time", "#troubles .warn"):
        assert contrast(opened, selector) >= 4.5, selector
    lightness = opened.run("return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (max(lightness) < 60) == dark


@pytest.mark.parametrize("width", [360, 400, 768, 1440, 2560])
def test_it_fits_the_window(opened: Page, width: int) -> None:
    if width == 400:
        opened.screenshot("dashboard-400", width=width)
    opened.look(width=width)
    time.sleep(0.3)
    assert opened.run("return document.documentElement.scrollWidth") <= width
    clipped = opened.run(
        "return [...document.querySelectorAll('.tile *, h2, .key, .badge, #clock, .scroll')]"
        ".filter((one) => one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).display !== 'inline')"
        ".map((one) => one.className + ' ' + one.textContent)"
    )
    assert clipped == []


def test_a_thousand_nodes_are_readable(page: Page) -> None:
    page.errors()
    with served(site(1000)) as large:
        page.open(large.url)
        page.wait_for_text("1,000 nodes, 8,000 GPUs", "#heat-count")
        page.wait_for_text("999 nodes report", "#tiles")
        page.wait_for_text("1 node is silent: gpu0003", "#heat-detail")
        page.screenshot("dashboard-1000-nodes", width=1440)
        box = page.run(
            "const box = document.getElementById('heat').getBoundingClientRect(); return [box.width, box.height]"
        )
        assert box[1] < 800, "all of them at a glance"
        colours = page.run("const canvas = document.getElementById('heat');"
                           "const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);"
                           "const seen = new Set(); for (let i = 0; i < data.length; i += 4) {"
                           "if (data[i + 3] === 255) seen.add(data[i] * 65536 + data[i + 1] * 256 + data[i + 2]); }"
                           "return seen.size")  # fmt: skip
        assert colours > 20
    assert [error for error in page.errors() if "ERR_" not in error] == [], "but for the connection that ended"


class JustStarted(MadeUpSite):
    """Nothing was measured, planned or decided yet."""

    def __init__(self) -> None:
        super().__init__(nodes=1)
        self.trail = self.live._trail = new_trail(ControllerConfig(state_path=Path("unused")), horizon_s=86_400.0)

    def picture(self) -> Picture:
        now_s = time.time()
        return Picture(ControllerView(), FastView(), {}, frozenset(), it_watts=None, now_s=now_s, wall_s=now_s)


def test_before_the_first_plan_everything_is_unknown_and_nothing_breaks(page: Page) -> None:
    page.errors()
    with served(JustStarted()) as running:
        page.open(running.url)
        page.wait_for_text("No job waits or runs.", "#jobs")
        page.wait_for_text("Total", "#bill")
        assert "\N{EN DASH}" in page.text('[data-tile="Grid import"] .value')
        assert "no target yet" in page.text("#tiles")
        assert "Nothing was decided yet." in page.text("#feed")
        page.screenshot("dashboard-just-started", width=1440)
        assert page.errors() == []


def test_a_controller_that_falls_silent_is_told_and_its_return_too(page: Page) -> None:
    with served(site(2)) as first:
        page.open(first.url)
        page.wait_for_text("live", "#link")
    page.wait_for_text("no contact", "#link")
    assert page.run("return document.body.classList.contains('stale')")
    with served(site(3), port=int(first.url.rpartition(":")[2])):
        page.wait_for_text("live", "#link")
        page.wait_for_text("3 nodes, 24 GPUs", "#heat-count")
        assert not page.run("return document.body.classList.contains('stale')")


def test_an_admin_holds_the_automation_and_a_stranger_does_not(page: Page) -> None:
    held = site(2)
    desk = AdminDesk(journal=FakeJournal(), clock=FakeClock(), grid_limit_watts=1e6)
    desk.on_event = held.decided.append
    with served(held, admin=desk, tokens=AdminTokens({"ops": TOKEN})) as running:
        page.open(running.url)
        page.wait_for_text("live", "#link")
        page.run("document.getElementById('admin-open').click()")
        for token, said in (("not the token", "no admin has this token"), (TOKEN, "Done.")):
            page.run("document.getElementById('admin-why').value = 'transformer <b>test</b>';"
                     "document.getElementById('admin-token').value = arguments[0];"
                     "document.getElementById('admin-send').click()", token)  # fmt: skip
            page.wait_for_text(said, "#admin-answer")
            assert (desk.current().hold is not None) == (token == TOKEN)
        page.wait_for_text("ops: transformer <b>test</b>", "#feed")
        assert (
            page.run("return JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])") == '[{},{},""]'
        )


def contrast(page: Page, selector: str) -> float:
    """WCAG's ratio of the text's colour to what lies behind it."""
    text, ground = page.run(
        "let one = document.querySelector(arguments[0]); const text = getComputedStyle(one).color;"
        "while (getComputedStyle(one).backgroundColor === 'rgba(0, 0, 0, 0)') one = one.parentElement;"
        "return [text, getComputedStyle(one).backgroundColor].map((c) => c.match(/[\\d.]+/g).slice(0, 3).map(Number))",
        selector,
    )

    def luminance(channels: list[float]) -> float:
        linear = [(c / 255 / 12.92) if c / 255 <= 0.03928 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(text), luminance(ground)))
    return (high + 0.05) / (low + 0.05)
