"""What users type is read strictly, and the same by the plugin and by the agent."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slurm_power.gpu import options as agent_options

Parse = Callable[[str, str], int | None]

_UNCHANGED = -77

# Near misses are worth more than noise: the characters that valid texts are made of, and a few foreign ones.
near_texts = st.text(alphabet="0123456789.:-+ WwMHzeEfx\t\n٣", max_size=14)
any_texts = st.one_of(near_texts, st.text(max_size=20))


@pytest.fixture
def parse(plugin_parts: ctypes.CDLL) -> Parse:
    def run(what: str, text: str) -> int | None:
        function = getattr(plugin_parts, f"parse_{what}")
        function.restype = ctypes.c_bool
        value = ctypes.c_long(_UNCHANGED)
        if function(text.encode().split(b"\0")[0], ctypes.byref(value)):
            return value.value
        assert value.value == _UNCHANGED, "a refused text must leave the value alone"
        return None

    return run


@pytest.mark.parametrize(
    ("what", "text", "value"),
    [
        ("watts", "300", 300),
        ("watts", "300W", 300),
        ("watts", "999999999", 999_999_999),
        ("mhz", "1200", 1200),
        ("slowdown", "0", 0),
        ("slowdown", "0.25", 250_000),
        ("slowdown", "0.9", 900_000),
        ("slowdown", "0.000001", 1),
        ("delay", "0", 0),
        ("delay", "90", 90 * 60),
        ("delay", "1:30", 90),
        ("delay", "90:00", 90 * 60),
        ("delay", "1:02:03", 3723),
        ("delay", "100:00:00", 360_000),
        ("delay", "1-2", 26 * 3600),
        ("delay", "1-02:30", 26 * 3600 + 1800),
        ("delay", "1-02:03:04", 86400 + 2 * 3600 + 184),
        ("delay", "366-0", 366 * 86400),
    ],
)
def test_a_whole_value_is_read(parse: Parse, what: str, text: str, value: int) -> None:
    assert parse(what, text) == value


_NO_NUMBERS = [
    "",
    " ",
    "-1",
    "+1",
    " 1",
    "1 ",
    "1\n",
    "0x10",
    "1e3",
    "1,5",
    "nan",
    "inf",
    "infinity",
    "٣",
    "9999999999",
]


@pytest.mark.parametrize("text", [*_NO_NUMBERS, "W", "300w", "300WW", "300 W", "300.5", "300kW"])
def test_watts_with_anything_else_are_refused(parse: Parse, text: str) -> None:
    assert parse("watts", text) is None


@pytest.mark.parametrize("text", [*_NO_NUMBERS, "1200MHz", "1200.0"])
def test_a_clock_with_anything_else_is_refused(parse: Parse, text: str) -> None:
    assert parse("mhz", text) is None


@pytest.mark.parametrize(
    "text", [*_NO_NUMBERS, "1", "0.", ".5", "00.5", "0.900001", "0.91", "0.1234567", "0.5x", "0,5"]
)
def test_a_slowdown_outside_the_rule_is_refused(parse: Parse, text: str) -> None:
    assert parse("slowdown", text) is None


@pytest.mark.parametrize(
    "text",
    [
        *_NO_NUMBERS,
        "1:001",
        "366-00:00:01",
        "527041",
        "UNLIMITED",
        "INFINITE",
        "now",
        ":",
        "1:",
        ":1",
        "1:60",
        "1::1",
        "1:2:3:4",
        "1-",
        "-1",
        "1-24",
        "1-1:60",
        "1--1",
        "1-1-1",
        "1-:5",
    ],
)
def test_a_delay_outside_slurms_syntax_is_refused(parse: Parse, text: str) -> None:
    assert parse("delay", text) is None


@pytest.mark.parametrize(("text", "number"), [("firm", 0), ("flexible", 1), ("preemptible", 2)])
def test_the_three_classes_are_read(plugin_parts: ctypes.CDLL, text: str, number: int) -> None:
    value = ctypes.c_int(_UNCHANGED)
    plugin_parts.parse_power_class.restype = ctypes.c_bool
    assert plugin_parts.parse_power_class(text.encode(), ctypes.byref(value))
    assert value.value == number


@pytest.mark.parametrize("text", ["", "Firm", "firm ", "flex", "flexible,firm", "2"])
def test_another_class_is_refused(plugin_parts: ctypes.CDLL, text: str) -> None:
    value = ctypes.c_int()
    plugin_parts.parse_power_class.restype = ctypes.c_bool
    assert not plugin_parts.parse_power_class(text.encode(), ctypes.byref(value))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=any_texts)
def test_what_the_plugin_accepts_the_agent_reads_the_same(parse: Parse, text: str) -> None:
    text = text.split("\0")[0]
    watts, mhz, slowdown, delay = (parse(what, text) for what in ("watts", "mhz", "slowdown", "delay"))
    if watts is not None and 0 < watts <= agent_options.MAX_CAP_WATTS and len(text) < 6:
        assert agent_options.parse_cap_watts(text) == watts
    if mhz is not None and 0 < mhz <= agent_options.MAX_CLOCK_MHZ and len(text) < 6:
        assert agent_options.parse_clock_mhz(text) == mhz
    if slowdown is not None:
        assert agent_options.parse_slowdown_fraction(text) == pytest.approx(slowdown / 1e6)
    if delay is not None and len(text) < 9:
        assert agent_options.parse_slurm_time_s(text) == delay


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(days=st.integers(0, 365), hours=st.integers(0, 23), minutes=st.integers(0, 59), seconds=st.integers(0, 59))
def test_every_delay_below_a_year_reads_back(parse: Parse, days: int, hours: int, minutes: int, seconds: int) -> None:
    text = f"{days}-{hours:02}:{minutes:02}:{seconds:02}"
    assert parse("delay", text) == ((days * 24 + hours) * 60 + minutes) * 60 + seconds
