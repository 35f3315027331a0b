"""Watt budgets at the controller: who may report, who may wish, and when a budget ends."""

from __future__ import annotations

from typing import Any

import pytest

from slurm_power.daemons.pool_budgets import PoolBudgets
from slurm_power.errors import ConfigError, NotPermitted
from slurm_power.llm.pool_wire import (
    Budget,
    Override,
    PoolFigures,
    PoolReport,
    budgets_from_json,
    override_to_json,
    report_from_json,
    report_to_json,
)
from slurm_power.llm.power_budget import PoolDraw
from slurm_power.testing.fake_clock import FakeClock
from slurm_power.testing.fake_credentials import FakeCredentials, FakeKey

POOL_USER, ADMIN, STRANGER = 500, 0, 501
REPORT = PoolReport("llm", (PoolDraw("llm/SS", 600.0, 200.0), PoolDraw("llm/LL", 400.0, 200.0)))


class Site:
    def __init__(self) -> None:
        self.clock, self.key = FakeClock(), FakeKey()
        self.budgets = PoolBudgets(
            clock=self.clock, credentials=self.of(0), allowed_uids=[POOL_USER], admin_uids=[ADMIN],
            max_age_s=30.0,
        )  # fmt: skip

    def of(self, uid: int) -> FakeCredentials:
        return FakeCredentials(self.clock, self.key, uid=uid)

    def report(self, report: PoolReport = REPORT, *, uid: int = POOL_USER) -> dict[str, Budget]:
        answer = self.budgets.exchange(self.of(uid).seal(report_to_json(report)))
        return budgets_from_json(self.of(POOL_USER).open(answer).payload)

    def wish(self, *wish: Any, uid: int = ADMIN) -> None:
        self.budgets.override(self.of(uid).seal(override_to_json(Override(*wish))))


def test_a_pool_without_a_peak_has_no_budget() -> None:
    assert Site().report() == {}


def test_what_the_plan_sheds_becomes_budgets_that_end_by_themselves() -> None:
    site = Site()
    site.report()
    site.budgets.follow(shed_watts=100.0, envelope_watts=1700.0, it_watts=2000.0, for_s=20.0)
    assert site.report() == {"llm/SS": Budget(400.0, 20.0), "llm/LL": Budget(300.0, 20.0)}
    site.clock.advance(20.0)
    assert site.report() == {}


def test_what_budgets_hold_back_is_known_while_they_hold() -> None:
    site = Site()
    site.report()
    assert site.budgets.held_back_watts() == 0.0
    for _ in range(2):
        site.budgets.follow(shed_watts=100.0, envelope_watts=1700.0, it_watts=2000.0, for_s=20.0)
        site.report(PoolReport("llm", (PoolDraw("llm/SS", 400.0, 200.0), PoolDraw("llm/LL", 450.0, 200.0))))
    assert site.budgets.held_back_watts() == 200.0
    site.budgets.follow(shed_watts=0.0, envelope_watts=1700.0, it_watts=2000.0, for_s=20.0)
    assert site.budgets.held_back_watts() == 0.0


def test_what_people_want_to_see_of_a_pool_is_passed_on() -> None:
    site = Site()
    figures = PoolFigures(instances=2, clock_mhz=1410.0, slack_s=-0.5, tokens_per_s=300.0, joules_per_token=2.0)
    site.report(PoolReport("llm", REPORT.pools, {"llm/SS": figures}))
    told = {one["pool"]: one for one in site.budgets.view()}
    assert told["llm/SS"]["slack_s"] == -0.5
    assert told["llm/SS"]["instances"] == 2
    assert "instances" not in told["llm/LL"]


def test_an_admins_wish_goes_before_the_plan_and_can_be_withdrawn() -> None:
    site = Site()
    site.report()
    site.budgets.follow(shed_watts=100.0, envelope_watts=1700.0, it_watts=2000.0, for_s=20.0)
    site.wish("llm/SS", 250.0, 600.0)
    assert site.report()["llm/SS"] == Budget(250.0, 600.0)
    site.wish("llm/SS", None, 0.0)
    assert site.report()["llm/SS"].watts == 400.0


def test_a_wish_for_an_owner_is_shared_by_all_its_pools() -> None:
    site = Site()
    site.report()
    site.wish("llm", 700.0, 600.0)
    assert {name: one.watts for name, one in site.report().items()} == {"llm/SS": 400.0, "llm/LL": 300.0}


def test_strangers_neither_report_nor_wish_and_nobody_takes_anothers_name() -> None:
    site = Site()
    with pytest.raises(NotPermitted):
        site.report(uid=STRANGER)
    site.report()
    with pytest.raises(NotPermitted):
        site.wish("llm/SS", 1.0, 600.0, uid=POOL_USER)
    with pytest.raises(ConfigError, match="there are llm/LL, llm/SS"):
        site.wish("other/SS", 1.0, 600.0)


def test_a_manager_that_is_silent_is_forgotten() -> None:
    site = Site()
    site.report()
    site.clock.advance(31.0)
    assert site.budgets.draws() == []


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"owner": "llm", "pools": 3}', b'{"owner": "../x", "pools": []}',
     b'{"owner": "llm", "pools": [{"name": "other/SS", "draw_watts": 1, "least_watts": 1, "figures": null}]}',
     b'{"owner": "llm", "pools": [{"name": "llm/SS", "draw_watts": -1, "least_watts": 1, "figures": null}]}',
     b'{"owner": "llm", "pools": [{"name": "llm/SS", "draw_watts": 1e999, "least_watts": 1, "figures": null}]}',
     b'{"owner": "llm", "pools": [{"name": "llm/SS", "draw_watts": 1, "least_watts": 1, "figures": {"x": 1}}]}'],
)  # fmt: skip
def test_nonsense_is_refused(body: bytes) -> None:
    with pytest.raises(ConfigError):
        report_from_json(body)
