"""The last rung: preemptible jobs go back to the queue when caps alone do not bring the draw under the envelope."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from slurm_power.relocation.caps import cap_action
from slurm_power.relocation.job_mark import parse_mark, with_mark, without_actions
from slurm_power.relocation.job_power import JobPower
from slurm_power.relocation.jobs import JobState, PowerClass
from slurm_power.relocation.plan import JobAction
from slurm_power.relocation.settings import RelocationConfig
from slurm_power.relocation.words import kilowatts


def may_be_requeued(power: JobPower, config: RelocationConfig) -> bool:
    return (
        power.power_class is PowerClass.PREEMPTIBLE
        and power.job.state is JobState.RUNNING
        and power.job.batch
        and power.job.requeueable
        and power.mark.requeued < config.max_requeues_per_job
    )


def plan_requeues(
    powers: Sequence[JobPower], *, uncovered_watts: float, wall_s: float, config: RelocationConfig
) -> list[JobAction]:
    """The fewest and youngest jobs, which lose the least GPU time, of the users who have paid least: of whose jobs that
    live the fewest were requeued."""
    if uncovered_watts <= config.requeue_shortfall_watts:
        return []
    paid: Counter[int] = Counter()
    for power in powers:
        paid[power.job.uid] += power.mark.requeued
    ready = [power for power in powers if may_be_requeued(power, config)]
    actions: list[JobAction] = []
    while ready and uncovered_watts > 0 and len(actions) < config.max_requeues_per_tick:
        power = min(ready, key=lambda p: (paid[p.job.uid], _lost_gpu_s(p, wall_s), p.job.job_id))
        ready.remove(power)
        paid[power.job.uid] += 1
        reason = f"{kilowatts(uncovered_watts)} above the envelope with all caps at their lowest"
        actions.append(requeue_action(power, reason=reason, config=config))
        uncovered_watts -= _freed_watts(power, config)
    return actions


def requeue_action(power: JobPower, *, reason: str, config: RelocationConfig) -> JobAction:
    """Requeue, counted in the mark, with the licence it had before any cap of ours."""
    restored = cap_action(power, None, reason=reason, config=config)
    bare = without_actions(parse_mark(power.job.admin_comment))
    counted = replace(bare, requeued=power.mark.requeued + 1)
    return JobAction(
        "requeue",
        power.job.job_id,
        reason,
        licenses=restored.licenses,
        admin_comment=with_mark(power.job.admin_comment, counted),
    )


def _lost_gpu_s(power: JobPower, wall_s: float) -> float:
    return power.job.gpus * (wall_s - (power.job.start_wall_s if power.job.start_wall_s is not None else wall_s))


def _freed_watts(power: JobPower, config: RelocationConfig) -> float:
    drawn = power.uncapped_watts if power.drawn_gpu_watts is None else power.drawn_gpu_watts
    return max(0.0, drawn - power.job.gpus * config.gpu_idle_watts)
