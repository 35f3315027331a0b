"""What users asked for and when: the jobs of a trace in order of submission, whatever file they came from."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from slurm_power.errors import ConfigError, require
from slurm_power.relocation.jobs import PowerClass

_DAY_S = 86_400.0
_JITTER_S = 3600.0
_WORST_LINES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceJob:
    job_id: int
    user: str
    submit_s: float
    """From the trace's first moment."""

    gpus: int
    nodes: int | None = None
    """None: as few as it takes."""

    runtime_s: float
    """At full speed. A policy never sees it."""

    time_limit_s: float | None = None
    """None: unlimited."""

    power_class: PowerClass = PowerClass.FLEXIBLE
    max_slowdown_fraction: float = 0.1
    max_delay_s: float = 4 * 3600.0
    workload: str = ""
    """Names its throughput curve; an unknown name gets the default curve."""

    source_id: str = ""
    """As the file calls it."""


@dataclass(frozen=True, slots=True)
class BadLine:
    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class Trace:
    jobs: tuple[TraceJob, ...]
    """In order of submission."""

    origin_wall_s: float | None = None
    """The wall time of second 0; None: the file does not say."""

    skipped: Mapping[str, int] | None = None
    """Readable rows that are no jobs for us, by reason."""

    bad_lines: tuple[BadLine, ...] = ()
    notes: tuple[str, ...] = ()
    """What was assumed or done to it, in words."""

    @property
    def span_s(self) -> float:
        """From second 0 to the last submission."""
        return self.jobs[-1].submit_s if self.jobs else 0.0

    @property
    def gpu_seconds(self) -> float:
        return sum(job.gpus * job.runtime_s for job in self.jobs)

    def in_words(self) -> list[str]:
        """For a person who wants to know what was read."""
        lines = [f"{len(self.jobs)} jobs over {self.span_s / _DAY_S:.1f} days", *self.notes]
        lines += [f"{count} rows left out: {reason}" for reason, count in sorted((self.skipped or {}).items())]
        lines += [f"line {bad.number}: {bad.reason}" for bad in self.bad_lines[:_WORST_LINES]]
        if len(self.bad_lines) > _WORST_LINES:
            lines.append(f"and {len(self.bad_lines) - _WORST_LINES} more unreadable lines")
        return lines


def collected(
    jobs: Iterable[TraceJob],
    *,
    file_kind: str,
    origin_wall_s: float | None = None,
    skipped: Mapping[str, int] | None = None,
    bad_lines: Sequence[BadLine] = (),
    notes: Sequence[str] = (),
) -> Trace:
    """Sorted by submission, counted from the first one, numbered from 1. Raise ConfigError if there is no job."""
    ordered = sorted(jobs, key=lambda job: job.submit_s)
    if not ordered:
        why = [f"line {bad_lines[0].number}: {bad_lines[0].reason}"] if bad_lines else []
        why += [f"{count} rows: {reason}" for reason, count in (skipped or {}).items()]
        raise ConfigError(f"{file_kind}: no job can be read ({'; '.join(why) or 'the file is empty'})")
    first_s = ordered[0].submit_s
    numbered = tuple(
        replace(job, job_id=number, submit_s=job.submit_s - first_s) for number, job in enumerate(ordered, start=1)
    )
    origin = None if origin_wall_s is None else origin_wall_s + first_s
    return Trace(numbered, origin, dict(skipped or {}), tuple(bad_lines), tuple(notes))


def limit_at_least(time_limit_s: float | None, runtime_s: float) -> float | None:
    """Schedulers let a job run on for a moment; what did run is never beyond its limit here."""
    return None if time_limit_s is None else max(time_limit_s, runtime_s)


def cut(trace: Trace, start_s: float, end_s: float) -> Trace:
    """The jobs submitted in [start_s, end_s), counted from `start_s`."""
    jobs = tuple(replace(job, submit_s=job.submit_s - start_s) for job in trace.jobs if start_s <= job.submit_s < end_s)
    if not jobs:
        raise ConfigError(f"trace: no job is submitted between {start_s:.0f} s and {end_s:.0f} s")
    origin = None if trace.origin_wall_s is None else trace.origin_wall_s + start_s
    note = f"only jobs submitted from second {start_s:.0f} to {end_s:.0f}"
    return replace(trace, jobs=jobs, origin_wall_s=origin, notes=(*trace.notes, note))


def scaled(trace: Trace, *, gpus: int, load_fraction: float = 0.7, compression: float = 1.0, seed: int = 0) -> Trace:
    """A trace that keeps `load_fraction` of `gpus` busy on average over the time in which jobs are submitted.

    First the submissions are compressed in time (run times stay), then whole copies and a drawn part of one more
    copy are laid over each other. A copy is moved by whole days, so that the hour of day stays, and each of its
    jobs by up to an hour. Below one copy, a drawn part is kept. Jobs wider than the cluster are left out.
    """
    require(0 < load_fraction <= 2, "load_fraction", load_fraction, "must be in (0, 2]")
    require(compression > 0, "compression", compression, "must be above 0")
    fitting = [replace(job, submit_s=job.submit_s / compression) for job in trace.jobs if job.gpus <= gpus]
    span_s = max((job.submit_s for job in fitting), default=0.0)
    busy_gpu_s = sum(job.gpus * job.runtime_s for job in fitting)
    if span_s <= 0 or busy_gpu_s <= 0:
        raise ConfigError("trace: needs at least two jobs at different times that fit the cluster")
    copies = load_fraction * gpus * span_s / busy_gpu_s
    rng = np.random.default_rng(seed)
    jobs: list[TraceJob] = []
    for number in range(math.ceil(copies)):
        share = min(1.0, copies - number)
        jobs += _copy(fitting, number, share=share, span_s=span_s, rng=rng)
    skipped = Counter(trace.skipped or {})
    if len(fitting) < len(trace.jobs):
        skipped[f"wider than {gpus} GPUs"] += len(trace.jobs) - len(fitting)
    note = (
        f"scaled to {load_fraction:.0%} of {gpus} GPUs: submissions compressed {compression:g} times, "
        f"{copies:.2f} copies, seed {seed}"
    )
    return collected(
        jobs,
        file_kind="scaled trace",
        origin_wall_s=trace.origin_wall_s,
        skipped=skipped,
        bad_lines=trace.bad_lines,
        notes=(*trace.notes, note),
    )


def _copy(
    jobs: Sequence[TraceJob], number: int, *, share: float, span_s: float, rng: np.random.Generator
) -> Iterable[TraceJob]:
    """The first copy stays where it is."""
    kept = rng.random(len(jobs)) < share if share < 1 else np.ones(len(jobs), dtype=bool)
    days = max(1, math.ceil(span_s / _DAY_S))
    moved_s = float(rng.integers(days)) * _DAY_S if number else 0.0
    jitter_s = rng.random(len(jobs)) * (min(_JITTER_S, span_s) if number else 0.0)
    around_s = days * _DAY_S if span_s >= _DAY_S else span_s
    for job, keep, jitter in zip(jobs, kept, jitter_s, strict=True):
        if keep:
            submit_s = (job.submit_s + moved_s + float(jitter)) % around_s if number else job.submit_s
            yield replace(job, submit_s=submit_s, user=f"{job.user}~{number}" if number else job.user)


def assigned(
    trace: Trace,
    *,
    workloads: Sequence[str] = (),
    class_shares: Mapping[PowerClass, float] | None = None,
    seed: int = 0,
) -> Trace:
    """Draw each job's workload and its class from the given shares, for traces that know neither."""
    rng = np.random.default_rng(seed)
    jobs = list(trace.jobs)
    notes = list(trace.notes)
    if workloads:
        drawn = rng.integers(len(workloads), size=len(jobs))
        jobs = [replace(job, workload=workloads[i]) for job, i in zip(jobs, drawn, strict=True)]
        notes.append(f"workloads drawn from {', '.join(workloads)}, seed {seed}")
    if class_shares:
        total = sum(class_shares.values())
        require(total > 0, "class_shares", dict(class_shares), "must not all be 0")
        classes = list(class_shares)
        drawn = rng.choice(len(classes), size=len(jobs), p=[class_shares[c] / total for c in classes])
        jobs = [replace(job, power_class=classes[i]) for job, i in zip(jobs, drawn, strict=True)]
        told = ", ".join(f"{c.value} {share / total:.0%}" for c, share in class_shares.items())
        notes.append(f"classes drawn: {told}, seed {seed}")
    return replace(trace, jobs=tuple(jobs), notes=tuple(notes))
