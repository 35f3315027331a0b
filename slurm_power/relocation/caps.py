"""Caps for running jobs: as little as the envelope asks, in proportion to what each job allows, and calmly back.

A cap falls at once when the draw is above the envelope, and rises only while a margin stays free and only a
part of the way per tick; between the two it stays (hysteresis). What a job would draw without our cap is
never read from its capped draw, so caps do not ratchet down.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from slurm_power.relocation.job_mark import with_mark
from slurm_power.relocation.job_power import JobPower, nominal_gpu_watts
from slurm_power.relocation.jobs import JobState
from slurm_power.relocation.plan import JobAction
from slurm_power.relocation.settings import RelocationConfig
from slurm_power.relocation.throughput import lowest_cap_watts
from slurm_power.relocation.words import kilowatts


@dataclass(frozen=True, slots=True)
class CapPlan:
    caps: dict[int, float]
    """All caps that hold from now on: watts per GPU by job id."""

    actions: tuple[JobAction, ...]
    uncovered_watts: float
    """Of the excess, what all caps together do not take away."""

    exhausted: bool
    """True: every job that may be capped already was at its lowest cap before this tick."""


@dataclass(frozen=True, slots=True)
class _Range:
    power: JobPower
    lowest_watts: float

    @property
    def room_watts(self) -> float:
        return self.power.busy_gpus * max(0.0, self.power.gpu_watts - self.lowest_watts)

    @property
    def dormant_watts(self) -> float:
        """What it drew before our cap and does not draw now for reasons of its own: it may come back any time."""
        return self.power.job.gpus * max(0.0, (self.power.mark.drawn_watts or 0.0) - self.power.gpu_watts)

    def cap_at(self, share: float) -> float:
        return self.power.gpu_watts - share * max(0.0, self.power.gpu_watts - self.lowest_watts)


def is_cappable(power: JobPower) -> bool:
    return power.touchable and power.job.state is JobState.RUNNING and power.job.gpus > 0


def plan_caps(powers: Sequence[JobPower], *, excess_watts: float, reason: str, config: RelocationConfig) -> CapPlan:
    """`excess_watts`: uncapped IT draw above the envelope (below zero: that much is free)."""
    ranges = [_range(power, config) for power in powers if is_cappable(power)]
    room_watts = sum(one.room_watts for one in ranges)
    tight = _share(excess_watts, room_watts)
    loose = _share(excess_watts + config.cap_release_margin_watts, room_watts)
    spare_watts = -excess_watts - config.cap_release_margin_watts
    caps: dict[int, float] = {}
    actions = []
    for one in ranges:
        cap = _next_cap(one, tight=tight, loose=loose, spare_watts=spare_watts, config=config)
        if cap is None:
            spare_watts -= one.dormant_watts
        else:
            caps[one.power.job.job_id] = cap
        if cap != one.power.mark.capped_watts:
            actions.append(cap_action(one.power, cap, reason=reason, config=config))
    return CapPlan(
        caps=caps,
        actions=tuple(actions),
        uncovered_watts=max(0.0, excess_watts - room_watts),
        exhausted=all(_is_at_bottom(one, config) for one in ranges),
    )


def cap_action(power: JobPower, cap_watts: float | None, *, reason: str, config: RelocationConfig) -> JobAction:
    """Set, change or (None) withdraw the cap of one job, with mark and licence in the same request."""
    mark = power.mark
    if cap_watts is None:
        bare = replace(mark, capped_watts=None, licenses_before=None, drawn_watts=None)
        return JobAction(
            "uncap",
            power.job.job_id,
            reason,
            licenses=_licenses(power, mark.licenses_before),
            admin_comment=with_mark(power.job.admin_comment, bare),
        )
    before = mark.licenses_before
    if before is None and power.license_name is not None:
        before = power.job.licenses[power.license_name]
    saved_watts = power.job.gpus * max(0.0, nominal_gpu_watts(mark, config) - cap_watts)
    shrunk = None if before is None else min(before, max(1, before - math.floor(saved_watts)))
    drawn = mark.drawn_watts if mark.drawn_watts is not None else power.gpu_watts
    marked = replace(mark, capped_watts=cap_watts, licenses_before=before, drawn_watts=drawn)
    return JobAction(
        "cap",
        power.job.job_id,
        f"{reason}: {cap_watts:.0f} W per GPU",
        licenses=_licenses(power, shrunk),
        admin_comment=with_mark(power.job.admin_comment, marked),
        gpu_cap_watts=cap_watts,
    )


def excess_reason(excess_watts: float, envelope_watts: float) -> str:
    if excess_watts <= 0:
        return f"the envelope of {kilowatts(envelope_watts)} has {kilowatts(-excess_watts)} to spare"
    return f"IT would draw {kilowatts(envelope_watts + excess_watts)}, the envelope is {kilowatts(envelope_watts)}"


def _range(power: JobPower, config: RelocationConfig) -> _Range:
    if power.lowest_cap_watts is not None:
        return _Range(power, power.lowest_cap_watts)
    asked = power.mark.request.max_slowdown_fraction
    slowdown = config.default_max_slowdown_fraction if asked is None else asked
    return _Range(power, lowest_cap_watts(power.gpu_watts, max_slowdown_fraction=slowdown, config=config))


def _share(excess_watts: float, room_watts: float) -> float:
    if excess_watts <= 0 or room_watts <= 0:
        return 0.0
    return min(1.0, excess_watts / room_watts)


def _next_cap(one: _Range, *, tight: float, loose: float, spare_watts: float, config: RelocationConfig) -> float | None:
    current, step = one.power.mark.capped_watts, config.cap_step_watts
    needed, released = one.cap_at(tight), one.cap_at(loose)
    if current is None:
        if one.room_watts <= 0 or one.power.gpu_watts - needed < step / 2:
            return None
        return _on_step(needed, one, step)
    if current > needed:
        if needed > one.power.gpu_watts - step / 2:  # nothing is asked of it, and its cap does not hold it back
            return None if one.dormant_watts <= spare_watts else current
        return min(current, _on_step(needed, one, step))
    rise = config.cap_release_fraction_per_tick * max(step, one.power.gpu_watts - one.lowest_watts)
    raised = min(released, current + max(step, rise))
    if raised >= one.power.gpu_watts - step / 2:
        return None
    return max(current, _on_step(raised, one, step))


def _on_step(watts: float, one: _Range, step: float) -> float:
    """Rounded down to a whole step, but never below what the job allows."""
    return max(math.floor(watts / step + 1e-9) * step, math.ceil(one.lowest_watts))


def _is_at_bottom(one: _Range, config: RelocationConfig) -> bool:
    current = one.power.mark.capped_watts
    return one.room_watts <= 0 or (current is not None and current <= one.lowest_watts + config.cap_step_watts)


def _licenses(power: JobPower, count: int | None) -> dict[str, int] | None:
    """All of the job's licences with ours changed to `count`; None if nothing changes."""
    if power.license_name is None or count is None or power.job.licenses[power.license_name] == count:
        return None
    return {**power.job.licenses, power.license_name: count}
