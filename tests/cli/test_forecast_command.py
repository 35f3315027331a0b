"""slurm-power forecast backtest: scores beside naive ones, and what errors cost."""

from __future__ import annotations

import json
import math
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from slurm_power.cli.forecast import _print_regret
from slurm_power.cli.main import slurm_power
from slurm_power.errors import ConfigError
from slurm_power.forecasting import boosted
from tests.urdb_rates import FLAT_RATE


@pytest.fixture(autouse=True)
def _small_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boosted, "_ROUNDS", 5)
    monkeypatch.setattr(boosted, "_PAIRS", 2000)


@pytest.fixture
def load(tmp_path: Path) -> Path:
    """Forty days, in steps of two hours, with an evening peak of changing height."""
    rng, start = random.Random(1), datetime(2024, 5, 1, tzinfo=UTC)
    lines = ["time,load_kw"]
    for step in range(40 * 12):
        height = 300 + 60 * math.sin(step // 12)
        kw = 400 + height * math.exp(-((((2 * step % 24) - 18) / 3) ** 2)) + rng.gauss(0, 10)
        lines.append(f"{(start + timedelta(hours=2 * step)).isoformat()},{kw:.2f}")
    file = tmp_path / "load.csv"
    file.write_text("\n".join(lines))
    return file


def called(*arguments: object) -> Result:
    argv = ["forecast", "backtest", *map(str, arguments)]
    return CliRunner().invoke(slurm_power, argv, catch_exceptions=False)


def test_errors_are_told_in_money_when_a_rate_is_given(
    load: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rate = tmp_path / "rate.json"
    rate.write_text(json.dumps(FLAT_RATE))
    done = called(load, "--days", 2, "--tariff", rate, "--json")
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert set(found["scores"]) == {"ours", "naive 1 day", "naive 7 days"}
    regret = found["money_regret"]
    assert 0 <= regret["ours"] <= regret["none"]
    _print_regret(regret)
    shown = " ".join(capsys.readouterr().out.split())
    assert f"everything known: without the battery {regret['none']:,.2f}, planned with our forecast" in shown


def test_a_record_too_short_or_a_battery_of_nothing_is_refused(load: Path) -> None:
    with pytest.raises(ConfigError, match="too few to test"):
        called(load, "--days", 20)
    with pytest.raises(ConfigError, match="--battery 0"):
        called(load, "--days", 3, "--battery", 0)
