"""Wear by rainflow: known cycles, deep against shallow, energy kept, a measured profile."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_power.errors import ConfigError
from slurm_power.ess.cell_wear import CellLife, Cycle, counted_cycles, wear_of

PROFILE = Path(__file__).parents[3] / "shared/data/battery/blast_commercial_peak_shaving_soc.csv"
LINEAR = CellLife(rated_cycles=1000.0, rated_depth_fraction=1.0, depth_exponent=1.0, replacement_cost_per_kwh=200.0)


def test_one_whole_cycle_at_the_rated_depth_uses_one_of_the_rated_cycles() -> None:
    life = CellLife(rated_cycles=6000.0, rated_depth_fraction=0.8)
    assert life.used_fraction([Cycle(0.8, 1.0)]) == pytest.approx(1 / 6000)


def test_a_small_dip_inside_a_large_one_is_a_cycle_of_its_own() -> None:
    cycles = counted_cycles([1.0, 0.2, 0.5, 0.4, 1.0])
    assert sorted((round(one.depth_fraction, 3), one.count) for one in cycles) == [(0.1, 1.0), (0.8, 0.5), (0.8, 0.5)]


def test_deep_cycles_wear_more_than_as_much_energy_in_shallow_ones() -> None:
    life = CellLife(depth_exponent=1.5)
    deep = wear_of([1.0, 0.2, 1.0], life)
    shallow = wear_of([1.0, 0.8, 1.0, 0.8, 1.0, 0.8, 1.0, 0.8, 1.0], life)
    assert deep.full_cycles == pytest.approx(shallow.full_cycles)
    assert deep.used_fraction == pytest.approx(2 * shallow.used_fraction)


def test_a_linear_life_costs_the_same_per_kwh_whatever_the_depth() -> None:
    for soc in ([1.0, 0.2, 1.0], [0.6, 0.5, 0.6, 0.5, 0.6]):
        assert wear_of(soc, LINEAR).cost_per_kwh == pytest.approx(200 / 1000)


def test_a_battery_at_rest_does_not_wear() -> None:
    still = wear_of([0.5] * 10, LINEAR)
    assert (still.used_fraction, still.cost_per_kwh, still.deepest_fraction) == (0.0, None, 0.0)


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=60))
def test_counted_cycles_hold_all_the_energy_that_was_moved(permille: list[int]) -> None:
    soc = [one / 1000 for one in permille]
    moved = float(np.abs(np.diff(soc)).sum()) / 2
    assert sum(one.count * one.depth_fraction for one in counted_cycles(soc)) == pytest.approx(moved, abs=1e-9)


@pytest.mark.skipif(not PROFILE.is_file(), reason="the measured state of charge is not at ../shared/data/battery")
def test_a_measured_year_of_peak_shaving_is_counted_whole() -> None:
    with PROFILE.open(newline="", encoding="utf-8") as lines:
        soc = [float(row["SOC"]) for row in csv.DictReader(lines)]
    wear = wear_of(soc, CellLife(replacement_cost_per_kwh=150.0))
    assert wear.full_cycles == pytest.approx(float(np.abs(np.diff(soc)).sum()) / 2)
    assert wear.full_cycles == pytest.approx(18.84, abs=0.01)
    assert wear.deepest_fraction == pytest.approx(max(soc) - min(soc))
    shallow = CellLife(depth_exponent=1.0, replacement_cost_per_kwh=150.0)
    assert wear.used_fraction < wear_of(soc, shallow).used_fraction  # most of its cycles are shallow


@pytest.mark.parametrize(
    ("key", "value"), [("rated_cycles", 0.0), ("rated_depth_fraction", 1.1), ("depth_exponent", 0.5)]
)
def test_a_life_that_cannot_be_is_refused(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=key):
        CellLife(**{key: value})
