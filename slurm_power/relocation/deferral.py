"""Waiting jobs: which get a later StartTime, which of ours are let go, and which have waited long enough.

The licences do most of the work: a job that Slurm holds back by itself is left alone. StartTime is for a job
that Slurm would start although a slot of its run has no room for it, or (if the site wants that) whose energy
is cheaper later; never beyond the job's own delay bound, counted from its submission.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from slurm_power.relocation.job_mark import with_mark
from slurm_power.relocation.job_power import JobPower, is_waiting, max_delay_s
from slurm_power.relocation.jobs import JobState
from slurm_power.relocation.plan import JobAction
from slurm_power.relocation.reservations import Slice
from slurm_power.relocation.room import Room
from slurm_power.relocation.settings import RelocationConfig
from slurm_power.relocation.words import kilowatts, span


@dataclass(slots=True)
class _Ledger:
    """Licensed watts still free per slot, and in Slurm's own pool, while jobs are let in one by one."""

    room: Room
    slices: Sequence[Slice]
    wall_s: float
    config: RelocationConfig
    free_watts: np.ndarray[tuple[int], np.dtype[np.float64]]
    pool_watts: float  # total - used now

    def end_of(self, power: JobPower, start_wall_s: float) -> float | None:
        duration_s = power.duration_s
        return None if duration_s is None else start_wall_s + duration_s

    def lowest_free_watts(self, power: JobPower, start_wall_s: float) -> float:
        during = self.room.overlapping(start_wall_s, self.end_of(power, start_wall_s))
        return float(self.free_watts[during].min()) if during.any() else float(self.config.license_total_watts)

    def slurm_would_start(self, power: JobPower) -> bool:
        """As 22.05 decides: total - used now - the sum of the reservations that the run overlaps, by its time limit."""
        limit_s = power.job.time_limit_s
        end = None if limit_s is None else self.wall_s + limit_s
        reserved = sum(one.watts for one in self.slices if end is None or one.start_wall_s < end)
        return power.licensed_watts <= self.pool_watts - reserved

    def let_in(self, power: JobPower, start_wall_s: float) -> None:
        during = self.room.overlapping(start_wall_s, self.end_of(power, start_wall_s))
        self.free_watts[during] -= power.licensed_watts
        if start_wall_s <= self.wall_s:
            self.pool_watts -= power.licensed_watts


def plan_deferrals(
    powers: Sequence[JobPower], *, room: Room, slices: Sequence[Slice], wall_s: float, config: RelocationConfig
) -> list[JobAction]:
    """Actions on waiting jobs that may be delayed, in Slurm's order. `slices` is what will be reserved."""
    ledger = _ledger(powers, room, slices, wall_s, config)
    waiting = [p for p in powers if is_waiting(p) and p.touchable and p.license_name == config.license_name]
    waiting = waiting[: config.max_jobs_considered]
    allowed = int(config.max_deferred_fraction * len(waiting))
    deferred = sum(_is_deferred(p, wall_s) for p in waiting)
    actions: list[JobAction] = []
    for power in waiting:
        if _is_deferred(power, wall_s):
            action = _maybe_release(power, ledger)
            deferred -= action is not None
        elif power.job.begin_wall_s is not None and power.job.begin_wall_s > wall_s:
            continue  # its user wants it later
        else:
            action = _maybe_promote(power, ledger)
            if action is None and deferred < allowed:
                action = _maybe_defer(power, ledger)
                deferred += action is not None
            if action is None and ledger.slurm_would_start(power):
                ledger.let_in(power, wall_s)
        if action is not None:
            actions.append(action)
    return actions


def release_action(power: JobPower, *, wall_s: float, reason: str) -> JobAction:
    """Begin now, and forget that we deferred it."""
    bare = replace(power.mark, deferred_until_wall_s=None)
    comment = with_mark(power.job.admin_comment, bare)
    return JobAction("release", power.job.job_id, reason, begin_wall_s=wall_s, admin_comment=comment)


def is_ours_to_release(power: JobPower, wall_s: float) -> bool:
    return power.job.state is JobState.PENDING and _is_deferred(power, wall_s)


def _is_deferred(power: JobPower, wall_s: float) -> bool:
    until = power.mark.deferred_until_wall_s
    return until is not None and until > wall_s


def _ledger(
    powers: Sequence[JobPower], room: Room, slices: Sequence[Slice], wall_s: float, config: RelocationConfig
) -> _Ledger:
    ledger = _Ledger(room, slices, wall_s, config, room.available_watts.copy(), float(config.license_total_watts))
    for power in powers:
        if power.job.state is JobState.RUNNING and power.license_name == config.license_name:
            end = power.end_wall_s(wall_s)
            ledger.free_watts[room.overlapping(wall_s, None if end is None else max(end, wall_s + 1.0))] -= (
                power.licensed_watts
            )
            ledger.pool_watts -= power.licensed_watts
    return ledger


def _maybe_release(power: JobPower, ledger: _Ledger) -> JobAction | None:
    """Early, once there is room and something to spare."""
    wall_s, config = ledger.wall_s, ledger.config
    late = wall_s >= power.job.submit_wall_s + max_delay_s(power, config)
    needed = power.licensed_watts + config.cap_release_margin_watts
    if not late and ledger.lowest_free_watts(power, wall_s) < needed:
        ledger.let_in(power, power.mark.deferred_until_wall_s or wall_s)
        return None
    ledger.let_in(power, wall_s)
    reason = "it has waited as long as it may" if late else f"there is room for its {kilowatts(power.licensed_watts)}"
    return release_action(power, wall_s=wall_s, reason=reason)


def _maybe_promote(power: JobPower, ledger: _Ledger) -> JobAction | None:
    """A job that power has kept waiting beyond its bound takes a firm licence, which is never reserved."""
    config = ledger.config
    bound_s = max_delay_s(power, config)
    held_by_power = power.job.state_reason == "Licenses" and not ledger.slurm_would_start(power)
    if not held_by_power or ledger.wall_s < power.job.submit_wall_s + bound_s:
        return None
    licenses = {name: count for name, count in power.job.licenses.items() if name != config.license_name}
    licenses[config.firm_license_name] = round(power.licensed_watts)
    ledger.free_watts -= power.licensed_watts
    reason = f"power has kept it waiting for {span(bound_s)}, as long as it may: its watts are firm now"
    return JobAction("release", power.job.job_id, reason, licenses=licenses)


def _maybe_defer(power: JobPower, ledger: _Ledger) -> JobAction | None:
    wall_s, config = ledger.wall_s, ledger.config
    if not ledger.slurm_would_start(power):
        return None
    latest_s = power.job.submit_wall_s + max_delay_s(power, config)
    start = _best_start(power, ledger, latest_s=latest_s)
    if start is None or start - wall_s < config.min_deferral_s:
        return None
    short = ledger.lowest_free_watts(power, wall_s)
    if short < power.licensed_watts:
        why = f"its run has room for {kilowatts(max(0.0, short))} only, it asks {kilowatts(power.licensed_watts)}"
    else:
        why = "its energy is cheaper then"
    ledger.let_in(power, start)
    marked = with_mark(power.job.admin_comment, replace(power.mark, deferred_until_wall_s=start))
    reason = f"{why}: starts in {span(start - wall_s)}"
    return JobAction("defer", power.job.job_id, reason, begin_wall_s=start, admin_comment=marked)


def _best_start(power: JobPower, ledger: _Ledger, *, latest_s: float) -> float | None:
    """The first start with room for the whole run; or the cheapest one, if the site defers for the price."""
    wall_s, config = ledger.wall_s, ledger.config
    saving = config.min_deferral_saving_fraction
    if saving is None and ledger.lowest_free_watts(power, wall_s) >= power.licensed_watts:
        return wall_s
    later: list[float] = [s for s in ledger.room.start_wall_s.tolist() if wall_s < s <= latest_s]
    fitting = [s for s in (wall_s, *later) if ledger.lowest_free_watts(power, s) >= power.licensed_watts]
    if not fitting:
        return None
    if saving is None or power.job.time_limit_s is None or fitting[0] > wall_s:
        return fitting[0]
    costs = [_mean_price(power, ledger, s) for s in fitting]
    cheapest = costs.index(min(costs))
    return fitting[cheapest] if costs[cheapest] <= (1 - saving) * costs[0] and costs[0] > 0 else fitting[0]


def _mean_price(power: JobPower, ledger: _Ledger, start_wall_s: float) -> float:
    """Mean price per kWh over the run; the last known price stands for what the plan does not reach."""
    room, end = ledger.room, ledger.end_of(power, start_wall_s) or start_wall_s
    seconds = np.clip(np.minimum(room.end_wall_s, end) - np.maximum(room.start_wall_s, start_wall_s), 0.0, None)
    beyond_s = max(0.0, end - max(start_wall_s, float(room.end_wall_s[-1])))
    total = float((seconds * room.price_per_kwh).sum()) + beyond_s * float(room.price_per_kwh[-1])
    return total / max(1e-9, float(seconds.sum()) + beyond_s)
