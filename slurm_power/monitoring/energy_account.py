"""Whose energy it was: jobs with their attempts, and what nobody held. Pure.

Every stretch has one owner, so the sums of jobs and of nobody are the sum of the nodes, to the last joule.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from slurm_power.monitoring.energy import NOTHING, Used
from slurm_power.monitoring.energy_marks import Holder, Stretch
from slurm_power.monitoring.energy_nodes import Beside

TOUCH_S = 2.0
"""Stretches of one job further apart than this are two attempts; a requeue takes longer."""


@dataclass(frozen=True, slots=True)
class Worth:
    """None: no tariff, or no carbon intensity, is known for all of it."""

    money: float | None = None
    carbon_grams: float | None = None

    def __add__(self, other: Worth) -> Worth:
        return Worth(_sum(self.money, other.money), _sum(self.carbon_grams, other.carbon_grams))


WORTHLESS = Worth(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Spent:
    """Energy with what it rests on."""

    gpu: Used = NOTHING
    beside: Beside = Beside()
    worth: Worth = WORTHLESS

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.gpu + other.gpu, self.beside + other.beside, self.worth + other.worth)

    @property
    def joules(self) -> float:
        return self.gpu.joules + self.beside.joules


GAPS_LISTED = 20


@dataclass(frozen=True, slots=True)
class Gap:
    """Within these times not all of a GPU's energy is known."""

    node: str
    uuid: str
    from_wall_s: float
    to_wall_s: float
    unknown_s: float


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a job from its first GPU to its last."""

    begin_wall_s: float
    end_wall_s: float
    uuids: frozenset[str]
    nodes: frozenset[str]
    spent: Spent
    gaps: tuple[Gap, ...] = ()
    """The first GAPS_LISTED."""

    @property
    def length_s(self) -> float:
        return self.end_wall_s - self.begin_wall_s

    @property
    def mean_watts(self) -> float | None:
        return self.spent.joules / self.length_s if self.length_s > 0 else None

    def joined(self, other: Attempt) -> Attempt:
        return Attempt(
            min(self.begin_wall_s, other.begin_wall_s),
            max(self.end_wall_s, other.end_wall_s),
            self.uuids | other.uuids,
            self.nodes | other.nodes,
            self.spent + other.spent,
            (*self.gaps, *other.gaps)[:GAPS_LISTED],
        )


@dataclass(frozen=True, slots=True)
class JobEnergy:
    holder: Holder
    attempts: tuple[Attempt, ...]

    @property
    def spent(self) -> Spent:
        return sum((attempt.spent for attempt in self.attempts), Spent())

    @property
    def ran_s(self) -> float:
        return sum(attempt.length_s for attempt in self.attempts)

    @property
    def mean_watts(self) -> float | None:
        return self.spent.joules / self.ran_s if self.ran_s > 0 else None


@dataclass(frozen=True, slots=True)
class EnergyAccount:
    jobs: Mapping[int, JobEnergy] = field(default_factory=dict)
    idle: Spent = Spent()
    """Of GPUs that no job held, with their share of their nodes."""

    apart: Beside = Beside()
    """What nodes drew beside their GPUs where jobs do not carry it."""

    @property
    def total_joules(self) -> float:
        held = sum(job.spent.joules for job in self.jobs.values())
        return held + self.idle.joules + self.apart.joules

    def __add__(self, later: EnergyAccount) -> EnergyAccount:
        """Of two periods that follow each other; a job that runs over the border has one attempt."""
        jobs = dict(self.jobs)
        for job_id, job in later.jobs.items():
            known = jobs.get(job_id)
            attempts = (*(known.attempts if known else ()), *job.attempts)
            jobs[job_id] = JobEnergy(job.holder, tuple(joined_attempts(attempts)))
        return EnergyAccount(jobs, self.idle + later.idle, self.apart + later.apart)


def account_of(
    stretches: Sequence[Stretch], shares: Sequence[Beside], worths: Sequence[Worth], *, apart: Beside | None = None
) -> EnergyAccount:
    """`shares` and `worths` belong to the stretches, one each."""
    held: dict[int, list[Attempt]] = {}
    holders: dict[int, Holder] = {}
    idle = Spent()
    for stretch, beside, worth in zip(stretches, shares, worths, strict=True):
        spent = Spent(stretch.used, beside, worth)
        if stretch.holder is None:
            idle += spent
            continue
        holders[stretch.holder.job_id] = stretch.holder
        one = Attempt(
            stretch.from_wall_s,
            stretch.to_wall_s,
            frozenset([stretch.uuid]),
            frozenset([stretch.node]),
            spent,
            _gaps(stretch),
        )
        held.setdefault(stretch.holder.job_id, []).append(one)
    jobs = {job_id: JobEnergy(holders[job_id], tuple(joined_attempts(attempts))) for job_id, attempts in held.items()}
    return EnergyAccount(jobs, idle, apart or Beside())


def _gaps(stretch: Stretch) -> tuple[Gap, ...]:
    unknown_s = stretch.used.unknown_s
    gap = Gap(stretch.node, stretch.uuid, stretch.from_wall_s, stretch.to_wall_s, unknown_s)
    return (gap,) if unknown_s > 0 else ()


def joined_attempts(parts: Iterable[Attempt]) -> list[Attempt]:
    """In order of their begin; those that touch are one."""
    found: list[Attempt] = []
    for part in sorted(parts, key=lambda one: (one.begin_wall_s, one.end_wall_s)):
        if found and part.begin_wall_s <= found[-1].end_wall_s + TOUCH_S:
            found[-1] = found[-1].joined(part)
        else:
            found.append(part)
    return found


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other
