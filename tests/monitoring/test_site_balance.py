from __future__ import annotations

from dataclasses import replace

import pytest

from slurm_power.monitoring.readings import EssReading, GpuReading, GridReading, NodeReading
from slurm_power.monitoring.site_balance import inflexible_watts, it_draw_watts, site_load_watts

GRID = GridReading(import_watts=10_000.0, export_watts=0.0, taken_at_s=0.0)
ESS = EssReading(0.5, None, 3.6e6, 5000.0, 5000.0, 0.0, 0.0, True, (), 0.0)


def test_the_balance_closes() -> None:
    ess = replace(ESS, discharge_watts=2000.0)
    assert inflexible_watts(GRID, ess=ess, it_watts=5000.0, pue=1.2) == pytest.approx(10_000 + 2000 - 6000)


def test_charging_is_not_load() -> None:
    assert site_load_watts(GRID, ess=replace(ESS, charge_watts=3000.0)) == pytest.approx(7000.0)


@pytest.mark.parametrize(("grid", "ess", "it_watts"), [(None, ESS, 1.0), (GRID, None, 1.0), (GRID, ESS, None)])
def test_an_unknown_part_makes_the_balance_unknown(
    grid: GridReading | None, ess: EssReading | None, it_watts: float | None
) -> None:
    assert inflexible_watts(grid, ess=ess, it_watts=it_watts, pue=1.2) is None


def test_readings_of_different_moments_do_not_make_a_negative_load() -> None:
    assert inflexible_watts(GRID, ess=ESS, it_watts=20_000.0, pue=1.0) == 0.0


def test_one_silent_gpu_makes_the_it_draw_unknown() -> None:
    gpu = GpuReading("GPU-1", 300.0, None, None, None, None, None, "found", None)
    node = NodeReading("n1", 500.0, (gpu,), 0.0)
    silent = NodeReading("n2", 500.0, (replace(gpu, draw_watts=None),), 0.0)
    assert it_draw_watts([node]) == 800.0
    assert it_draw_watts([node, silent]) is None
