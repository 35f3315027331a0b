"""slurm-power bill, as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from slurm_power.cli.bill import bill_command
from slurm_power.errors import ConfigError

HOURS = [[0] * 24 for _ in range(12)]


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    rate = {
        "name": "flat",
        "energyratestructure": [[{"rate": 0.1, "unit": "kWh"}]],
        "energyweekdayschedule": HOURS,
        "energyweekendschedule": HOURS,
        "flatdemandstructure": [[{"rate": 5.0}]],
        "flatdemandmonths": [0] * 12,
    }
    rows = [f"2024-03-01 {hour:02d}:{minute:02d}:00,{100 + hour}" for hour in range(24) for minute in (0, 5, 10, 15)]
    (tmp_path / "rate.json").write_text(json.dumps(rate))
    (tmp_path / "load.csv").write_text("\n".join(["time,site_kW", *rows]))
    return str(tmp_path / "load.csv"), str(tmp_path / "rate.json")


def test_the_bill_is_printed_line_by_line_with_the_time_of_the_peak(files: tuple[str, str]) -> None:
    result = CliRunner().invoke(bill_command, ["--load", files[0], "--tariff", files[1]])
    assert result.exit_code == 0
    assert "March 2024" in result.output
    assert all(text in result.output for text in ("123 kW", "615.00", "Fri 01 23:00"))


def test_json_adds_up(files: tuple[str, str]) -> None:
    result = CliRunner().invoke(bill_command, ["--load", files[0], "--tariff", files[1], "--json"])
    due = json.loads(result.output)
    assert due["total"] == pytest.approx(sum(line["money"] for line in due["lines"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tz", "Mars/Olympus"], "Mars/Olympus"),
        (["--column", "gas"], "there is no column 'gas'"),
        (["--from", "2030-01-01"], "no rows"),
    ],
)
def test_a_bad_option_is_named(files: tuple[str, str], options: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CliRunner().invoke(bill_command, ["--load", files[0], "--tariff", files[1], *options], catch_exceptions=False)


def test_a_tariff_that_is_no_json_is_named(files: tuple[str, str], tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    with pytest.raises(ConfigError, match=r"broken\.json"):
        CliRunner().invoke(bill_command, ["--load", files[0], "--tariff", str(broken)], catch_exceptions=False)
