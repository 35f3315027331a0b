"""Made-up readings of a GPU: what a clean hour, a hot one or a capped one looks like. Nothing here was measured."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import replace

from slurm_power.sla.board import BoardFacts, Window
from slurm_power.sla.gpu_tally import GpuFigures, GpuTally
from slurm_power.sla.sample import GpuMoment
from slurm_power.sla.samples import from_moments
from slurm_power.sla.thresholds import QualityThresholds

BEGIN_S = 1_800_000_000.0
BOARD = BoardFacts("made-up board", tdp_watts=700.0, max_sm_clock_mhz=1980.0, slowdown_celsius=90.0)
UUID, NODE = "GPU-made-up-0", "n1"

Change = Callable[[GpuMoment, int], GpuMoment]


def busy(second: int, **changes: float | int | str | None) -> GpuMoment:
    """At full work, under the board's own limit, cool."""
    usual = GpuMoment(
        BEGIN_S + second,
        sm_clock_mhz=1980.0,
        temperature_celsius=60.0,
        thermal_margin_celsius=27.0,
        utilisation_fraction=0.97,
        draw_watts=610.0,
        cap_watts=700.0,
        power_violation_s=0.0,
        thermal_violation_s=0.0,
        throttle_reasons=0,
        cap_source="found",
    )
    return replace(usual, **changes)  # type: ignore[arg-type]


def capped(second: int, *, source: str = "lease", watts: float = 400.0, **changes: float | int | None) -> GpuMoment:
    """Held by a limit: the clock is what fits under it."""
    usual: dict[str, float | int | str | None] = {
        "sm_clock_mhz": 1410.0,
        "draw_watts": watts - 2.0,
        "cap_watts": watts,
        "cap_source": source,
        "throttle_reasons": 0x4,
        "power_violation_s": float(second),
    }
    return busy(second, **{**usual, **changes})


def hot(second: int) -> GpuMoment:
    return busy(
        second,
        sm_clock_mhz=1200.0,
        temperature_celsius=86.0,
        thermal_margin_celsius=1.0,
        draw_watts=380.0,
        throttle_reasons=0x20,
        thermal_violation_s=float(second),
    )


def jittering(second: int) -> GpuMoment:
    return busy(second, sm_clock_mhz=1980.0 - 15.0 * random.Random(second).randrange(16))


def starved(second: int) -> GpuMoment:
    return busy(second, draw_watts=150.0, utilisation_fraction=1.0)


def idle(second: int) -> GpuMoment:
    return busy(
        second,
        sm_clock_mhz=345.0,
        draw_watts=70.0,
        utilisation_fraction=0.0,
        throttle_reasons=0x1,
        temperature_celsius=35.0,
    )


def figures(
    moments: Iterable[GpuMoment],
    *,
    window: Window | None = None,
    board: BoardFacts = BOARD,
    thresholds: QualityThresholds | None = None,
    chunk: int = 10_000,
    uuid: str = UUID,
) -> GpuFigures:
    """Of one GPU, fed `chunk` readings at a time."""
    given = list(moments)
    window = window or Window(given[0].wall_s, given[-1].wall_s)
    tally = GpuTally(uuid, NODE, board=board, thresholds=thresholds or QualityThresholds(), whole=window)
    tally.open(window)
    for at in range(0, len(given), chunk):
        tally.feed(from_moments(given[at : at + chunk]))
    tally.close()
    return tally.figures()
