"""slurm-power replay: files in, a table or JSON and a picture out, and one line for what cannot be."""

from __future__ import annotations

import json
import math
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from slurm_power.cli.main import slurm_power
from slurm_power.errors import ConfigError
from tests.urdb_rates import FLAT_RATE

SWF = """; UnixStartTime: 0
4 0 0 60 8 -1 -1 8 600 -1 1 1 1 1 1 1 -1 -1
1 9000 0 3600 8 -1 -1 8 7200 -1 1 1 1 1 1 1 -1 -1
2 9060 0 3600 8 -1 -1 8 7200 -1 1 2 1 1 1 1 -1 -1
3 9120 0 1800 8 -1 -1 8 7200 -1 1 3 1 1 1 1 -1 -1
"""


@pytest.fixture
def rate(tmp_path: Path) -> Path:
    file = tmp_path / "rate.json"
    file.write_text(json.dumps(FLAT_RATE))
    return file


@pytest.fixture
def load(tmp_path: Path) -> Path:
    """Twelve days, hourly, with an evening peak."""
    rng, start = random.Random(1), datetime(2024, 5, 1, tzinfo=UTC)
    lines = ["time,load_kw"]
    for hour in range(12 * 24):
        kw = 400 + 300 * math.exp(-((((hour % 24) - 18) / 3) ** 2)) + rng.gauss(0, 10)
        lines.append(f"{(start + timedelta(hours=hour)).isoformat()},{kw:.2f}")
    file = tmp_path / "load.csv"
    file.write_text("\n".join(lines))
    return file


def called(*arguments: object) -> Result:
    return CliRunner().invoke(slurm_power, ["replay", *map(str, arguments)], catch_exceptions=False)


def test_a_load_is_billed_without_and_with_a_battery_and_at_the_bound(load: Path, rate: Path, tmp_path: Path) -> None:
    picture = tmp_path / "load.png"
    done = called("load", load, "--tariff", rate, "--json", "--plot", picture)
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    bills = found["bills"]
    assert bills["perfect"] <= bills["ours_perfect_24h"] <= bills["none"]
    assert bills["perfect"] <= bills["ours"] <= bills["none"]
    assert (found["charge_created_peaks"], found["hard_violations"]) == (0, 0)
    assert found["days"] == pytest.approx(3.0)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_people_get_a_table(load: Path, rate: Path) -> None:
    done = called("load", load, "--tariff", rate)
    assert done.exit_code == 0
    assert "planned, with our forecast" in done.stdout
    assert "peaks made by charging: 0" in done.stdout.replace("\n", " ").replace("  ", " ")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--battery", "0"), "--battery"),
        (("--efficiency", "1.2"), "--efficiency"),
        (("--tz", "Mars/Olympus"), "--tz"),
        (("--from", "2024-05-02"), "--from"),
    ],
)
def test_an_option_that_cannot_be_is_one_line(load: Path, rate: Path, options: tuple[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        called("load", load, "--tariff", rate, *options)


def test_a_stream_of_jobs_is_run_and_a_limit_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "trace.swf"
    file.write_text(SWF)
    free = json.loads(called("jobs", file, "--format", "swf", "--gpus", 16, "--json").stdout)
    kept = json.loads(called("jobs", file, "--format", "swf", "--gpus", 16, "--limit-kw", 10, "--json").stdout)
    assert (free["finished"], kept["finished"]) == (4, 4)
    assert free["peak_it_watts"] > 12_000
    assert kept["makespan_s"] > free["makespan_s"]
    assert kept["peak_it_watts"] <= 10_000


def test_jobs_for_people_say_what_was_read(tmp_path: Path) -> None:
    file = tmp_path / "trace.swf"
    file.write_text(SWF)
    done = called("jobs", file, "--format", "swf", "--gpus", 16)
    assert done.exit_code == 0
    assert "firm jobs touched 0" in done.stdout.replace("\n", " ")


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError):
        called("jobs", file, "--format", "openb", "--gpus", 8)
