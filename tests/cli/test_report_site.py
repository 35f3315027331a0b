"""slurm-power report site, from a made-up record of a controller."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from slurm_power.cli.main import slurm_power
from slurm_power.ports.telemetry_store import Point
from tests.cli.report_store import ReportStore
from tests.cli.test_report import addresses
from tests.sla.made_up import BEGIN_S

PERIOD = ("--since", f"@{BEGIN_S:.0f}", "--until", f"@{BEGIN_S + 7200:.0f}")
TARIFF = """
[tariff]
currency = "EUR"
demand_price_per_kw = 10
[[tariff.energy_prices]]
start_s = 0
price_per_kwh = 0.2
"""
HOSTILE_REASON = '<img src="https://evil.example/x"> the peak \x1b[31m'


@pytest.fixture
def store(tmp_path: Path) -> ReportStore:
    """Two hours: 10 kW, in the second hour 20 kW; nothing is known of 15 minutes of it."""
    made = ReportStore(tmp_path)
    seconds = [second for second in range(0, 7201, 5) if not 4500 <= second < 5400]
    made.write(
        [
            Point(
                "site",
                BEGIN_S + second,
                {"grid_import_watts": 10_000.0 if second < 3600 else 20_000.0, "target_watts": 15_000.0},
            )
            for second in seconds
        ]
        + [
            Point(
                "decision",
                BEGIN_S + 60 * number,
                {"subject": "job 7", "reason": HOSTILE_REASON, "failure": "" if number else "Slurm said no"},
                {"verb": "cap"},
            )
            for number in range(3)
        ]
        + [Point("plan", BEGIN_S + 900, {"target_watts": 1.0, "shortfalls": "the battery is too small"})]
    )
    return made


def run(store: ReportStore, *arguments: str) -> Result:
    result = CliRunner().invoke(
        slurm_power, ["report", "site", *PERIOD, "--config", str(store.config), *arguments], env={"COLUMNS": "120"}
    )
    assert result.exit_code == 0, result.output
    return result


def test_peaks_energy_and_actions_are_told_and_what_is_unknown_is_no_part_of_them(store: ReportStore) -> None:
    content = json.loads(run(store, "--json").stdout)
    assert set(content) == {
        "since",
        "until",
        "interval_s",
        "known_fraction",
        "peaks",
        "joules",
        "over_target_s",
        "bill",
        "actions",
        "shortfalls",
    }
    assert content["known_fraction"] == 0.875
    assert content["peaks"][0]["watts"] == pytest.approx(20_000, rel=1e-3)
    assert content["joules"]["grid_import"] == pytest.approx(3600 * 10_000 + 2700 * 20_000, rel=2e-3)
    assert content["joules"]["it"] is None
    assert content["over_target_s"] == 2700
    assert content["bill"] is None
    (cap,) = content["actions"]
    assert (cap["verb"], cap["done"], cap["refused"]) == ("cap", 2, 1)
    assert content["shortfalls"] == [{"shortfall": "the battery is too small", "count": 1}]


def test_a_site_with_a_tariff_gets_its_bill(store: ReportStore) -> None:
    store.config.write_text(store.config.read_text() + TARIFF)
    bill = json.loads(run(store, "--json").stdout)["bill"]
    assert bill["currency"] == "EUR"
    assert bill["demand"] == pytest.approx(200, rel=1e-3)
    assert bill["energy"] == pytest.approx(0.2 * (10 + 15), rel=2e-3)
    assert bill["total"] == pytest.approx(bill["energy"] + bill["demand"])


def test_what_others_wrote_neither_moves_the_cursor_nor_enters_the_page(store: ReportStore, tmp_path: Path) -> None:
    file = tmp_path / "site.html"
    text = run(store, "--html", str(file)).output
    page = file.read_text()
    assert "\x1b" not in text
    assert "<img" not in page
    assert "\x1b" not in page
    assert addresses(page) == []
    assert "UTC" in text
