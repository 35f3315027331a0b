"""The options' text, as users typed it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_power.errors import ConfigError
from slurm_power.gpu.options import (
    PowerOptions,
    parse_cap_watts,
    parse_clock_mhz,
    parse_options,
    parse_slowdown_fraction,
    parse_slurm_time_s,
)
from slurm_power.gpu.wire import OPTIONS


def test_all_options_together() -> None:
    texts = {
        "gpu-power-cap": "300W",
        "gpu-clock": "1200",
        "power-class": "flexible",
        "power-max-slowdown": "0.2",
        "power-max-delay": "1:00:00",
    }
    assert parse_options(texts) == (PowerOptions(300.0, 1200, "flexible", 0.2, 3600.0), ())


def test_one_bad_option_does_not_cost_the_good_ones() -> None:
    options, refusals = parse_options({"gpu-power-cap": "lots", "gpu-clock": "900"})
    assert options == PowerOptions(gpu_clock_mhz=900)
    assert refusals == ("gpu-power-cap = lots: must be watts, as in 300 or 300W",)


@pytest.mark.parametrize(("text", "watts"), [("300", 300.0), ("300W", 300.0), ("300w", 300.0), ("287.5", 287.5)])
def test_watts(text: str, watts: float) -> None:
    assert parse_cap_watts(text) == watts


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "+3", "1e3", "300 W", "300kW", "nan", "inf", "3\n", "٣٠٠", "99999", "0x10"]
)
def test_what_is_not_watts(text: str) -> None:
    with pytest.raises(ConfigError, match="gpu-power-cap = "):
        parse_cap_watts(text)


@pytest.mark.parametrize("text", ["0", "1.5", "-5", "12000", "1200GHz"])
def test_what_is_not_a_clock(text: str) -> None:
    with pytest.raises(ConfigError, match="gpu-clock = "):
        parse_clock_mhz(text)


@pytest.mark.parametrize(("text", "fraction"), [("0", 0.0), ("0.9", 0.9), (".5", 0.5)])
def test_slowdown(text: str, fraction: float) -> None:
    assert parse_slowdown_fraction(text) == fraction


@pytest.mark.parametrize("text", ["0.91", "1", "20%", "-0.1", "0.", "nan"])
def test_what_is_not_a_slowdown(text: str) -> None:
    with pytest.raises(ConfigError, match="power-max-slowdown = "):
        parse_slowdown_fraction(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        pytest.param("90", 5400, id="minutes"),
        pytest.param("90:30", 5430, id="minutes-seconds"),
        pytest.param("1:30:00", 5400, id="hours-minutes-seconds"),
        pytest.param("1-12", 129600, id="days-hours"),
        pytest.param("1-12:30", 131400, id="days-hours-minutes"),
        pytest.param("1-12:30:15", 131415, id="days-hours-minutes-seconds"),
        pytest.param("0", 0, id="none"),
    ],
)
def test_slurm_times(text: str, seconds: float) -> None:
    assert parse_slurm_time_s(text) == seconds


@pytest.mark.parametrize("text", ["UNLIMITED", "-1", "1:2:3:4", "1-", "1 - 2", "400-0", "99999999"])
def test_what_is_not_a_slurm_time(text: str) -> None:
    with pytest.raises(ConfigError, match="power-max-delay = "):
        parse_slurm_time_s(text)


@given(st.dictionaries(st.sampled_from(OPTIONS), st.text(max_size=200)))
def test_hostile_text_is_refused_in_one_printable_line(texts: dict[str, str]) -> None:
    _, refusals = parse_options(texts)
    for line in refusals:
        assert line.isascii()
        assert line.isprintable()
        assert len(line) < 1000
