from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_power.errors import ConfigError
from slurm_power.monitoring.conservation import (
    BothSides,
    Conservation,
    ConservationRules,
    ConservationWindow,
    check_conservation,
)

RULES = ConservationRules(window_s=900.0)
FEEDER_WATTS = 10_000.0


def moments(
    share: Callable[[float], float | None], *, feeder: Callable[[float], float | None] | None = None
) -> list[BothSides]:
    """Every 5 s for 900 s; `share`: what the parts say, as a fraction of 10 kW."""
    said = []
    for at_s in range(0, 901, 5):
        part = share(at_s)
        said.append(
            BothSides(
                float(at_s),
                FEEDER_WATTS if feeder is None else feeder(at_s),
                None if part is None else part * FEEDER_WATTS,
            )
        )
    return said


def check(said: list[BothSides], rules: ConservationRules = RULES) -> Conservation:
    return check_conservation(said, rules=rules, max_gap_s=15.0)


def test_parts_that_add_up_are_good_and_the_verdict_has_the_numbers() -> None:
    found = check(moments(lambda _: 0.99))
    assert found.good
    assert found.verdict == "parts sum to 99.0 % of the feeder over 900 s (9.90 kW of 10.00 kW; drift +0.0 %)"
    assert found.ratio == pytest.approx(0.99)


def test_a_load_that_no_part_measures_is_named_with_its_size() -> None:
    found = check(moments(lambda _: 0.8))
    assert found.good is False
    assert found.verdict.endswith(": below 95.0 %, no part measures 2.00 kW")


def test_what_is_counted_twice_is_named() -> None:
    found = check(moments(lambda _: 1.1))
    assert found.good is False
    assert "above 102.0 %, something is counted twice or a scale is wrong" in found.verdict


def test_a_share_that_changes_inside_the_window_drifts_though_its_mean_is_good() -> None:
    found = check(moments(lambda at_s: 1.01 if at_s < 450 else 0.96))
    assert found.ratio == pytest.approx(0.985, abs=0.001)
    assert found.good is False
    assert found.drift == pytest.approx(-0.05, abs=0.001)
    assert "drift -5.0 %): drifts by more than 3.0 %, a part or a load came or went" in found.verdict


def test_a_half_of_which_hardly_anything_is_known_is_compared_with_nothing() -> None:
    found = check(moments(lambda at_s: None if 20 < at_s < 430 else 0.96 if at_s <= 20 else 1.01))
    assert (found.good, found.drift) == (True, None)
    assert "drift" not in found.verdict


def test_a_gap_is_left_out_of_both_sums_not_filled() -> None:
    """While the part is silent the feeder draws ten times as much: filled in, the share would be a fifth."""
    silent = range(300, 600)
    found = check(
        moments(
            lambda at_s: None if at_s in silent else 1.0,
            feeder=lambda at_s: 10 * FEEDER_WATTS if at_s in silent else FEEDER_WATTS,
        )
    )
    assert found.ratio == pytest.approx(1.0)
    assert found.known_s == pytest.approx(900 - 310, abs=10)


def test_a_silence_of_the_reader_is_a_gap_too() -> None:
    said = [one for one in moments(lambda _: 1.0) if not 200 < one.at_s < 400]
    assert check(said).known_s == pytest.approx(700.0)


@pytest.mark.parametrize("side", ["feeder", "parts"])
def test_with_too_little_known_there_is_no_verdict(side: str) -> None:
    late = lambda at_s: 1.0 if at_s > 600 else None  # noqa: E731
    said = moments(late) if side == "parts" else moments(lambda _: 1.0, feeder=lambda at_s: late(at_s) and 1e4)
    found = check(said)
    assert found.good is None
    assert found.ratio is None
    assert found.verdict == "feeder and all parts are known together for 295 s of 900 s: no verdict"


def test_nothing_known_at_all_is_no_verdict() -> None:
    assert check([]).good is None
    assert check([BothSides(0.0, 1.0, 1.0)]).good is None


def test_a_feeder_that_shows_no_draw_has_no_share() -> None:
    found = check(moments(lambda _: 0.1, feeder=lambda _: -500.0))
    assert (found.good, found.ratio) == (None, None)
    assert "the feeder shows a mean of -0.50 kW" in found.verdict


def test_a_site_says_itself_what_share_its_parts_have() -> None:
    rules = ConservationRules(min_fraction=0.55, max_fraction=0.7)
    assert check(moments(lambda _: 0.6), rules).good
    assert check(moments(lambda _: 0.95), rules).good is False


def test_the_window_forgets_what_is_older_than_it() -> None:
    window = ConservationWindow(RULES, max_gap_s=15.0)
    for at_s in range(0, 2000, 5):
        window.add(BothSides(float(at_s), FEEDER_WATTS, FEEDER_WATTS * (0.5 if at_s < 1000 else 1.0)))
    assert window.check().ratio == pytest.approx(1.0)


@given(share=st.floats(0.0, 3.0), gaps=st.sets(st.integers(0, 900), max_size=40))
def test_a_steady_share_is_found_whatever_is_missing(share: float, gaps: set[int]) -> None:
    found = check(moments(lambda at_s: None if at_s in gaps else share))
    if found.ratio is not None:
        assert found.ratio == pytest.approx(share)
        assert found.good == (0.95 <= share <= 1.02) or abs(share - 0.95) < 1e-6 or abs(share - 1.02) < 1e-6


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("window_s", 0.0),
        ("min_fraction", -0.1),
        ("max_fraction", 0.9),
        ("max_drift_fraction", 0.0),
        ("min_known_fraction", 0.0),
        ("min_known_fraction", 1.5),
    ],
)
def test_rules_that_cannot_hold_are_refused_by_name(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=key):
        ConservationRules(**{key: value})
