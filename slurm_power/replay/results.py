"""What a run came to: per slot, per job, per start, and in a few figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slurm_power.relocation.jobs import PowerClass
from slurm_power.replay.backfill import StartedBy, WaitedFor
from slurm_power.replay.job_table import CLASSES, FIRM_CODE, JobTable, Phase

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

_S_PER_H = 3600.0


@dataclass(frozen=True, slots=True)
class StartRecord:
    job_id: int
    start_s: float
    started_by: StartedBy
    waited_for: WaitedFor
    """Why it had not started when it was looked at before."""


@dataclass(frozen=True, slots=True)
class JobOutcomes:
    """One entry per job of the trace, in its order."""

    job_id: NDArray[np.int64]
    power_class: NDArray[np.int8]
    phase: NDArray[np.int8]
    gpus: Ints
    submit_s: Floats
    first_start_s: Floats
    """NaN: it never started."""

    end_s: Floats
    """NaN: it has not ended."""

    ran_s: Floats
    """Over all its starts, without suspensions."""

    done_s: Floats
    """Work kept, in seconds at full speed."""

    joules: Floats
    capped_gpu_s: Floats
    lost_gpu_s: Floats
    """Work (at full speed) that requeues threw away."""

    requeues: Ints
    suspensions: Ints
    touched: NDArray[np.bool_]
    """Any cap, hold, requeue or suspension."""

    @property
    def wait_s(self) -> Floats:
        return np.asarray(self.first_start_s - self.submit_s)

    @property
    def slowdown_fraction(self) -> Floats:
        """Of the throughput lost while it ran, without what requeues lost. NaN: it never ran."""
        work_s = self.done_s + self.lost_gpu_s / self.gpus
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.where(self.ran_s > 0, 1.0 - work_s / self.ran_s, np.nan))


@dataclass(frozen=True, slots=True)
class ClassSummary:
    jobs: int
    ended: int
    wait_p50_s: float | None
    """None: none of them started."""

    wait_p95_s: float | None
    worst_slowdown_fraction: float | None
    touched: int


@dataclass(frozen=True, slots=True)
class Summary:
    jobs: int
    finished: int
    timed_out: int
    """Ended by their limit; caps make more of them."""

    refused: int
    """Wider than the cluster."""

    unfinished: int
    classes: Mapping[PowerClass, ClassSummary]
    utilisation_fraction: float
    """Of all GPU time until the end of the last slot, what jobs ran on."""

    peak_it_watts: float
    """Highest mean of a slot."""

    highest_it_watts: float
    """At any moment."""

    it_joules: float
    gpu_hours_lost: float
    gpu_hours_capped: float
    requeues: int
    suspensions: int
    backfilled_starts: int
    firm_jobs_touched: int
    makespan_s: float | None
    """From second 0 to the last end. None: nobody ended."""


@dataclass(frozen=True, slots=True)
class Replay:
    slot_s: float
    slot_watts: Floats
    """Mean IT watts of each slot from second 0 on."""

    jobs: JobOutcomes
    starts: tuple[StartRecord, ...]
    job_joules: float
    idle_joules: float
    highest_it_watts: float
    gpus: int

    @property
    def it_joules(self) -> float:
        return float(self.slot_watts.sum() * self.slot_s)

    def summary(self) -> Summary:
        jobs, phase = self.jobs, self.jobs.phase
        ended_s = jobs.end_s[~np.isnan(jobs.end_s)]
        available_gpu_s = self.gpus * self.slot_watts.size * self.slot_s
        finished, timed_out, refused = (
            int(np.count_nonzero(phase == one)) for one in (Phase.FINISHED, Phase.TIMED_OUT, Phase.REFUSED)
        )
        return Summary(
            jobs=phase.size,
            finished=finished,
            timed_out=timed_out,
            refused=refused,
            unfinished=phase.size - finished - timed_out - refused,
            classes={c: _class_summary(jobs, jobs.power_class == code) for code, c in enumerate(CLASSES)},
            utilisation_fraction=float((jobs.gpus * jobs.ran_s).sum()) / available_gpu_s if available_gpu_s else 0.0,
            peak_it_watts=float(self.slot_watts.max(initial=0.0)),
            highest_it_watts=self.highest_it_watts,
            it_joules=self.it_joules,
            gpu_hours_lost=float(jobs.lost_gpu_s.sum()) / _S_PER_H,
            gpu_hours_capped=float(jobs.capped_gpu_s.sum()) / _S_PER_H,
            requeues=int(jobs.requeues.sum()),
            suspensions=int(jobs.suspensions.sum()),
            backfilled_starts=sum(one.started_by is StartedBy.BACKFILL for one in self.starts),
            firm_jobs_touched=int(np.count_nonzero(jobs.touched & (jobs.power_class == FIRM_CODE))),
            makespan_s=float(ended_s.max()) if ended_s.size else None,
        )


def _class_summary(jobs: JobOutcomes, mine: NDArray[np.bool_]) -> ClassSummary:
    waits_s = jobs.wait_s[mine & ~np.isnan(jobs.first_start_s)]
    slowdowns = jobs.slowdown_fraction[mine]
    slowdowns = slowdowns[~np.isnan(slowdowns)]
    return ClassSummary(
        jobs=int(np.count_nonzero(mine)),
        ended=int(np.count_nonzero(mine & ~np.isnan(jobs.end_s))),
        wait_p50_s=float(np.quantile(waits_s, 0.5)) if waits_s.size else None,
        wait_p95_s=float(np.quantile(waits_s, 0.95)) if waits_s.size else None,
        worst_slowdown_fraction=float(max(0.0, slowdowns.max())) if slowdowns.size else None,
        touched=int(np.count_nonzero(jobs.touched & mine)),
    )


def outcomes_of(table: JobTable) -> JobOutcomes:
    return JobOutcomes(
        job_id=table.job_id,
        power_class=table.power_class,
        phase=table.phase,
        gpus=table.gpus,
        submit_s=table.submit_s,
        first_start_s=table.first_start_s,
        end_s=table.end_s,
        ran_s=table.ran_s,
        done_s=table.done_s,
        joules=table.joules,
        capped_gpu_s=table.capped_gpu_s,
        lost_gpu_s=table.lost_gpu_s,
        requeues=table.requeues,
        suspensions=table.suspensions,
        touched=table.touched,
    )


def slot_watts_of(watts: Sequence[float]) -> Floats:
    return np.array(watts, dtype=np.float64)
