"""Pipeline bubbles by formula and replay, and what slower clocks save on a pipeline of uneven stages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.planning.bubble_formula import formula_fraction
from training.planning.frequency import FrequencyPlan, FrequencyTask
from training.planning.frequency_by_pass import plan_by_pass
from training.planning.frequency_by_rank import RANK_TOLERANCE_FRACTION, plan_by_rank
from training.planning.power_model import EMULATED, emulated_profile
from training.planning.replay import StageTimes, replay_schedule, uniform

CASES = tuple((p, k * p) for p in (2, 4, 8) for k in (2, 4, 8))
SCHEDULES = {"1f1b": (1, 1.0), "dualpipev": (2, 0.5)}
"""Stages a rank, and their length: both schedules do the same work, F = 1 and B = 2 a rank."""

UNEVEN = StageTimes(forward_s=(0.08, 0.10, 0.10, 0.14), backward_s=(0.16, 0.20, 0.20, 0.28))
"""Four stages: the first light (embedding), the last heavy (two heads), as a cut by whole layers leaves them."""

MICRO_BATCHES = 16

Measured = Mapping[tuple[str, int, int], float]


def measure(measured: Measured | None = None) -> dict[str, Any]:
    """`measured`: idle shares seen on an engine, by schedule, ranks and micro-batches; null where none was seen."""
    by_pass, by_rank = _clock_plans()
    return {
        "bubble": _bubbles(measured or {}),
        "pipeline_energy_saved_fraction": by_pass.saved_fraction,
        "pipeline_energy": {
            "case": f"1f1b, 4 uneven stages, {MICRO_BATCHES} micro-batches, power model of the emulated board",
            "clock_by_pass": _figures(by_pass),
            "clock_by_rank": _figures(by_rank) | {"tolerance_fraction": RANK_TOLERANCE_FRACTION},
        },
    }


def _bubbles(measured: Measured) -> list[dict[str, Any]]:
    """The nine usual cases of each schedule, and whatever else was measured."""
    usual = [(schedule, p, m) for schedule in SCHEDULES for p, m in CASES]
    return [_bubble(*case, measured.get(case)) for case in dict.fromkeys([*usual, *measured])]


def _bubble(schedule: str, p: int, m: int, measured: float | None) -> dict[str, Any]:
    stages, length_s = SCHEDULES[schedule]
    even = uniform(stages * p, forward_s=length_s, backward_s=2 * length_s)
    return {
        "schedule": schedule,
        "p": p,
        "m": m,
        "formula": formula_fraction(schedule, p, m),
        "replay": replay_schedule(schedule, p, m, even).bubble_fraction,
        "measured": measured,
    }


def _clock_plans() -> tuple[FrequencyPlan, FrequencyPlan]:
    profile = emulated_profile(UNEVEN, clocks_mhz=EMULATED.clocks_mhz(every=2))

    def task(tolerance_fraction: float) -> FrequencyTask:
        return FrequencyTask(
            schedule="1f1b",
            ranks=len(UNEVEN.forward_s),
            micro_batches=MICRO_BATCHES,
            profile=profile,
            tolerance_fraction=tolerance_fraction,
        )

    return plan_by_pass(task(0.0)), plan_by_rank(task(RANK_TOLERANCE_FRACTION))


def _figures(plan: FrequencyPlan) -> dict[str, Any]:
    return {
        "saved_fraction": plan.saved_fraction,
        "saved_joules": plan.saved_joules,
        "all_max_joules": plan.all_max_joules,
        "step_s": plan.step_s,
        "all_max_step_s": plan.all_max_step_s,
        "rank_clock_mhz": plan.rank_clock_mhz,
    }
