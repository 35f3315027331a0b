"""The instances of all pools, counted with what is on its way to them. Lives on the router's loop; never waits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from slurm_power.llm.instance_status import InstanceStatus
from slurm_power.llm.request_class import RequestClass, class_named
from slurm_power.llm.routing import LARGEST

if TYPE_CHECKING:
    from slurm_power.daemons.router_ticket import Ticket

FIRST_CAPACITY_TOKENS = 16_384
"""Until an instance says what it has."""


class PoolInstance:
    """One serving job. Implements routing's `Instance`."""

    __slots__ = (
        "accepts", "alive", "asked_tokens", "capacity_tokens", "ends", "gpus", "held_tokens", "job_id", "left_s",
        "missed_looks", "pool", "prefill_tokens", "prefill_tokens_per_s", "relief_s", "requests", "running", "seats",
        "served", "since_s", "status", "unbegun", "url",
    )  # fmt: skip

    def __init__(
        self, job_id: int, pool: RequestClass, *, gpus: int, seats: int, prefill_tokens_per_s: float, since_s: float
    ) -> None:
        self.job_id, self.pool, self.gpus = job_id, pool, gpus
        self.since_s = since_s  # it began to run, or was first seen
        self.running = False  # its job; serving comes later
        self.url = ""  # "": does not serve yet
        self.alive = False
        self.ends = False  # drains, and takes nothing new
        self.left_s: float | None = None  # until Slurm ends its job
        self.relief_s: float | None = None  # until another one should take its place; below zero: since then
        self.accepts = False
        self.seats = seats
        self.requests = self.held_tokens = self.prefill_tokens = self.served = self.asked_tokens = 0
        self.capacity_tokens = FIRST_CAPACITY_TOKENS
        self.prefill_tokens_per_s = prefill_tokens_per_s
        self.status: InstanceStatus | None = None
        self.missed_looks = 0
        self.unbegun: set[Ticket] = set()

    def settle(self) -> None:
        """After a change of the flags above."""
        self.accepts = bool(self.url) and self.alive and not self.ends

    @property
    def leaves(self) -> bool:
        """Its time is nearly up: it serves on until another one does."""
        return self.relief_s is not None and self.relief_s <= 0.0

    @property
    def name(self) -> str:
        return f"{self.pool.name}-{self.job_id}"


class Roster:
    """Pools are grouped anew only when one comes, goes or changes its mind: routing reads plain tuples."""

    def __init__(self) -> None:
        self._by_job: dict[int, PoolInstance] = {}
        self.pools: Mapping[RequestClass, Sequence[PoolInstance]] = {}
        self.there: frozenset[RequestClass] = frozenset()
        self.one_pool = False
        """Without the queue layer every instance serves every class."""

    def __iter__(self) -> Iterator[PoolInstance]:
        return iter(self._by_job.values())

    def __len__(self) -> int:
        return len(self._by_job)

    def get(self, job_id: int) -> PoolInstance | None:
        return self._by_job.get(job_id)

    def add(self, instance: PoolInstance) -> None:
        self._by_job[instance.job_id] = instance
        self.regroup()

    def remove(self, job_id: int) -> None:
        gone = self._by_job.pop(job_id, None)
        if gone is not None:
            gone.alive = False
            gone.settle()
            self.regroup()

    def regroup(self) -> None:
        grouped: dict[RequestClass, list[PoolInstance]] = {}
        for one in self._by_job.values():
            one.settle()
            if one.accepts:
                grouped.setdefault(LARGEST if self.one_pool else one.pool, []).append(one)
        self.pools = {pool: tuple(instances) for pool, instances in grouped.items()}
        self.there = frozenset(self.pools)

    def of_pool(self, pool: RequestClass) -> list[PoolInstance]:
        return [one for one in self._by_job.values() if one.pool == pool]

    def serving(self) -> int:
        return sum(one.accepts for one in self._by_job.values())


def pool_of(name: str) -> RequestClass | None:
    """None for a name that is no class: a job that somebody else named so."""
    try:
        return class_named(name)
    except KeyError:
        return None
