"""The cap one GPU gets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_power.gpu.caps import CapSources, ClockSources, effective_cap, effective_clock, same_cap

MAYBE_WATTS = st.none() | st.floats(min_value=1, max_value=2000)


def sources(found: float = 700.0, **asked: float) -> CapSources:
    return CapSources(found_watts=found, min_watts=200.0, max_watts=700.0, **asked)


@pytest.mark.parametrize(
    ("asked", "watts", "source"),
    [
        pytest.param({}, 700, "found", id="nobody-asks"),
        pytest.param({"user_watts": 300}, 300, "user", id="user"),
        pytest.param({"user_watts": 300, "lease_watts": 250}, 250, "lease", id="lease-below-user"),
        pytest.param({"user_watts": 300, "lease_watts": 350}, 300, "user", id="user-below-lease"),
        pytest.param({"safe_watts": 400}, 400, "safe", id="safe"),
        pytest.param({"user_watts": 900}, 700, "found", id="user-above-found-changes-nothing"),
        pytest.param({"user_watts": 100}, 200, "board", id="below-the-board"),
        pytest.param({"found": 500, "user_watts": 600}, 500, "found", id="found-below-user"),
        pytest.param({"found": 500, "user_watts": 500}, 500, "found", id="equal-is-found"),
        pytest.param({"found": 150, "user_watts": 100}, 150, "board", id="found-below-the-board-is-not-raised"),
    ],
)
def test_the_lowest_cap_wins_and_is_named(asked: dict[str, float], watts: float, source: str) -> None:
    cap = effective_cap(sources(**asked))
    assert (cap.watts, cap.source) == (watts, source)


def test_every_source_is_kept() -> None:
    asked = sources(user_watts=300, lease_watts=250, safe_watts=400)
    assert effective_cap(asked).sources == asked


@given(found=st.floats(min_value=1, max_value=700), user=MAYBE_WATTS, lease=MAYBE_WATTS, safe=MAYBE_WATTS)
def test_nobody_ever_raises_above_what_was_found(
    found: float, user: float | None, lease: float | None, safe: float | None
) -> None:
    cap = effective_cap(CapSources(found, 200.0, 700.0, user, lease, safe))
    assert cap.watts <= found
    for watts in (user, lease, safe):
        assert watts is None or cap.watts <= max(watts, 200.0)


@pytest.mark.parametrize(
    ("asked", "mhz", "source"),
    [
        pytest.param({}, None, "found", id="no-lock"),
        pytest.param({"user_mhz": 1200}, 1200, "user", id="user"),
        pytest.param({"user_mhz": 1200, "lease_mhz": 900}, 900, "lease", id="lease"),
        pytest.param({"user_mhz": 1980}, None, "found", id="at-the-maximum-is-no-lock"),
        pytest.param({"lease_mhz": 100}, 345, "board", id="below-the-board"),
    ],
)
def test_the_lowest_clock_wins(asked: dict[str, int], mhz: int | None, source: str) -> None:
    clock = effective_clock(ClockSources(min_mhz=345, max_mhz=1980, **asked))
    assert (clock.mhz, clock.source) == (mhz, source)


def test_a_rounded_cap_is_the_same_cap() -> None:
    assert same_cap(300.0, 299.0)
    assert not same_cap(300.0, 298.9)
