"""slurm-power llm simulate: figures out, one line for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from slurm_power.cli.main import slurm_power
from slurm_power.errors import ConfigError

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    file = tmp_path / "trace.csv"
    rows = (f"{second * 1.5},{100 + second % 700},{10 + second % 90}\n" for second in range(400))
    file.write_text(HEADER + "".join(rows))
    return file


def run(*words: object) -> Result:
    return CliRunner().invoke(slurm_power, ["llm", "simulate", *map(str, words)])


def test_json_has_every_policy_with_energy_deadlines_and_money(trace: Path) -> None:
    found = run("--trace", trace, "--policies", "single-pool,all", "--json")
    assert found.exit_code == 0, found.output
    told = json.loads(found.output)
    assert told["synthetic_week"] is False
    assert "composed, not measured on one machine" in told["profile"]["origin"]
    assert set(told["policies"]) == {"single-pool", "all"}
    one = told["policies"]["all"]
    assert one["requests"] == 400
    assert one["lost"] == 0
    assert one["energy_joules"] > 0.0
    assert one["ttft_s"]["p50"] <= one["ttft_s"]["p99"]
    assert one["carbon_g"] == pytest.approx(one["energy_joules"] / 3.6e6 * 400.0)
    assert one["cost"] == pytest.approx(3.0 * one["gpu_hours"])


def test_the_tables_fit_a_terminal_and_the_picture_is_drawn(trace: Path, tmp_path: Path) -> None:
    picture = tmp_path / "fleet.png"
    found = run("--trace", trace, "--policies", "single-pool", "--servers", 2, "--plot", picture)
    assert found.exit_code == 0, found.output
    assert "a fixed fleet has 2 servers" in found.output
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_carbon_is_counted_by_the_hour(trace: Path, tmp_path: Path) -> None:
    hours = tmp_path / "intensity.csv"
    hours.write_text("hour,g_per_kwh\n0,100\n1,300\n")
    one = json.loads(
        run("--trace", trace, "--policies", "single-pool", "--servers", 1, "--intensity", hours, "--json").output
    )["policies"]["single-pool"]
    assert one["carbon_g"] == pytest.approx(one["energy_joules"] / 3.6e6 * 100.0, rel=0.05)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--policies", "magic"], "unknown; known: single-pool"),
        (["--profile", "no-such-profile"], "no-such-profile"),
        (["--scale", "0"], "--scale 0.0: must be above 0"),
        (["--predictor-right", "2"], "--predictor-right 2.0: must be from 0 to 1"),
        (["--gpu-hour-price", "nan"], "--gpu-hour-price nan"),
    ],
)
def test_a_wrong_option_is_named_with_its_rule(trace: Path, words: list[str], said: str) -> None:
    found = run("--trace", trace, *words)
    assert isinstance(found.exception, ConfigError)
    assert said in str(found.exception)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hour,g\n0,1\n",
        "hour,g_per_kwh\n",
        "hour,g_per_kwh\n1,5\n",
        "hour,g_per_kwh\n0,-5\n",
        "hour,g_per_kwh\n0,x\n",
    ],
)
def test_a_broken_intensity_file_is_refused(trace: Path, tmp_path: Path, text: str) -> None:
    hours = tmp_path / "intensity.csv"
    hours.write_text(text)
    found = run("--trace", trace, "--intensity", hours)
    assert isinstance(found.exception, ConfigError)
    assert "intensity.csv" in str(found.exception)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_bytes(b"\xff\xfe\x00")
    assert isinstance(run("--trace", file).exception, ConfigError)
