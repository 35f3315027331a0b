"""Keeps the roster true: which of our jobs there are, where they answer, what they say of themselves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from slurm_power.daemons.pool_config import PoolConfig
from slurm_power.daemons.pool_roster import PoolInstance, Roster, pool_of
from slurm_power.errors import SlurmPowerError, Unavailable
from slurm_power.llm.instance_status import InstanceStatus
from slurm_power.llm.profile import ServingProfile, ShardProfile
from slurm_power.llm.relief import TimeLeft, relief_starts
from slurm_power.llm.request_class import RequestClass
from slurm_power.ports.clock import Clock
from slurm_power.ports.serving_instance import ServingInstance
from slurm_power.ports.serving_jobs import Address, ServingJob, ServingJobs

log = logging.getLogger(__name__)

_GONE_AFTER_LOOKS = 2
"""squeue forgets a job for a moment while it is started again."""

_JUDGED_PROMPT_TOKENS = 2048

OpenInstance = Callable[[str, Path], ServingInstance]


class PoolWatch:
    def __init__(
        self,
        config: PoolConfig,
        *,
        roster: Roster,
        jobs: ServingJobs,
        open_instance: OpenInstance,
        profile: ServingProfile,
        clock: Clock,
        pools: Mapping[int, RequestClass],
    ) -> None:
        """`pools`: job -> the pool it was last in, from before a restart."""
        self._config, self._roster, self._jobs, self._clock = config, roster, jobs, clock
        self._open_instance, self._profile = open_instance, profile
        self._pools = dict(pools)
        self._links: dict[int, ServingInstance] = {}
        self._closing: set[asyncio.Future[None]] = set()
        self.failures: dict[str, str] = {}
        self.models: tuple[str, ...] = ()
        self.model = Path(config.model).resolve().name
        """The one that is wanted; slurm-power-serve calls it so too."""

        self.most_seats = config.max_num_seqs
        self.energy_joules = 0.0
        """Of all instances since this manager started, those that ended included."""

        self.lost = 0
        """Jobs that ended before they were told to."""

    def link(self, job_id: int) -> ServingInstance | None:
        return self._links.get(job_id)

    def shard(self, instance: PoolInstance) -> ShardProfile:
        """What is known of such an instance; of the next smaller one where the profile has none of its degree."""
        known = sorted(self._profile.shards)
        fitting = [gpus for gpus in known if gpus <= instance.gpus]
        return self._profile.shards[fitting[-1] if fitting else known[0]]

    async def look(self) -> None:
        """Raise Unavailable when Slurm does not answer; then the roster stays as it was."""
        jobs, addresses = await asyncio.to_thread(self._ask)
        self._match(jobs)
        await self._find(addresses)
        await asyncio.gather(*(self._hear(one) for one in self._roster if one.url))
        self._roster.regroup()

    def expect(self, job_id: int, pool: RequestClass, gpus: int) -> None:
        """A job that was just submitted: it counts before squeue shows it."""
        self._pools[job_id] = pool
        if self._roster.get(job_id) is None:
            self._add(job_id, pool, gpus)

    def _ask(self) -> tuple[list[ServingJob], list[Address]]:
        return list(self._jobs.jobs()), list(self._jobs.addresses())

    def _match(self, jobs: list[ServingJob]) -> None:
        there = {job.job_id: job for job in jobs}
        for job in jobs:
            one = self._roster.get(job.job_id)
            pool = self._pools.get(job.job_id) or pool_of(job.pool)
            if one is None and pool is not None:
                one = self._add(job.job_id, pool, job.gpus)
            if one is not None:
                self._note(one, job)
        self._tell_reliefs({job.job_id: job.limit_s for job in jobs})
        for one in list(self._roster):
            one.missed_looks = 0 if one.job_id in there else one.missed_looks + 1
            if one.missed_looks >= _GONE_AFTER_LOOKS or (one.missed_looks and (one.running or one.ends)):
                self._drop(one)

    def _note(self, one: PoolInstance, job: ServingJob) -> None:
        if job.running and not one.running:
            one.since_s = self._clock.now_s()
        if one.running and not job.running:  # it is started again
            self._forget(one)
        one.running, one.left_s = job.running, job.left_s

    def _tell_reliefs(self, limits_s: Mapping[int, float | None]) -> None:
        lasting = [
            TimeLeft(one.job_id, one.left_s, limits_s.get(one.job_id))
            for one in self._roster
            if one.running and not one.ends and one.left_s is not None
        ]
        each_s = self.start_s + self._startup_s + self._config.drain_s
        starts = relief_starts(lasting, each_s=each_s)
        for one in self._roster:
            one.relief_s = starts.get(one.job_id)

    @property
    def start_s(self) -> float:
        """Of an instance on a server that is off."""
        return self._profile.boot_s + self._startup_s

    @property
    def _startup_s(self) -> float:
        return max(self.shard(one).startup_s for one in self._roster) if len(self._roster) else 0.0

    def _add(self, job_id: int, pool: RequestClass, gpus: int) -> PoolInstance:
        one = PoolInstance(
            job_id,
            pool,
            gpus=gpus,
            seats=self._config.max_num_seqs,
            prefill_tokens_per_s=1.0,
            since_s=self._clock.now_s(),
        )
        one.prefill_tokens_per_s = self.prefill_tokens_per_s(one, None)
        self._roster.add(one)
        return one

    def _drop(self, one: PoolInstance) -> None:
        self._forget(one)
        self._roster.remove(one.job_id)
        self._pools.pop(one.job_id, None)
        self.failures.pop(one.name, None)
        if not one.ends:
            self.lost += 1
            log.warning("instance %s ended before it was told to", one.name)

    def _forget(self, one: PoolInstance) -> None:
        one.url, one.alive, one.status = "", False, None
        link = self._links.pop(one.job_id, None)
        if link is not None:
            self._closing.add(closing := asyncio.ensure_future(link.close()))
            closing.add_done_callback(self._closing.discard)

    async def _find(self, addresses: list[Address]) -> None:
        for address in addresses:
            one = self._roster.get(address.job_id)
            if one is None or not one.running or one.url == address.url:
                continue
            self._forget(one)
            one.url = address.url
            self._links[one.job_id] = self._open_instance(address.url, Path(address.token_file))
            self.models = tuple(dict.fromkeys((address.public_name, *address.models)))

    async def _hear(self, one: PoolInstance) -> None:
        link = self._links[one.job_id]
        try:
            status = await link.status()
        except Unavailable as trouble:
            one.alive = False
            self.failures[one.name] = str(trouble)
        except SlurmPowerError as trouble:  # it answers, but not to us
            self.failures[one.name] = str(trouble)
        else:
            self.failures.pop(one.name, None)
            self._take(one, status)

    def _take(self, one: PoolInstance, status: InstanceStatus) -> None:
        before = one.status
        if status.energy_joules is not None:
            known = before.energy_joules if before is not None and before.energy_joules is not None else None
            self.energy_joules += max(0.0, status.energy_joules - known) if known is not None else 0.0
        one.status, one.alive = status, status.failure is None
        one.ends = one.ends or status.draining
        one.seats = min(self._config.max_num_seqs, status.max_num_seqs)
        if status.blocks_total:
            one.capacity_tokens = status.blocks_total * self._config.block_tokens
        one.prefill_tokens_per_s = self.prefill_tokens_per_s(one, status.sm_clock_mhz)

    def prefill_tokens_per_s(self, one: PoolInstance, clock_mhz: int | None) -> float:
        shard = self.shard(one)
        speed = shard.clock.speed_fraction(clock_mhz or shard.clock.highest_mhz)
        return _JUDGED_PROMPT_TOKENS * speed / max(1e-6, shard.prompt_s(_JUDGED_PROMPT_TOKENS))
