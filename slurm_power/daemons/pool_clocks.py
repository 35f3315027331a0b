"""The instance layer: every few seconds the lowest clock and the chunk that still meet every deadline; up at once.

`llm.instance_clock` decides. Clocks are asked for through the instance, which asks its node's agent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from dataclasses import replace

from slurm_power.daemons.pool_roster import PoolInstance, Roster
from slurm_power.daemons.pool_watch import PoolWatch
from slurm_power.errors import SlurmPowerError
from slurm_power.llm.instance_clock import ClockConfig, InstanceClock, InstanceView, Setting, WaitingPrompt
from slurm_power.llm.power_budget import BudgetPlan
from slurm_power.llm.request_class import RequestClass, Slo
from slurm_power.ports.clock import Clock
from slurm_power.ports.serving_instance import ServingInstance

log = logging.getLogger(__name__)

_HURRY_EVERY_S = 1.0
_ASK_AGAIN_S = 30.0
_RATE_SHARE = 0.5
_CHUNK_STEP = 0.15
"""A chunk that differs by less is not worth a call."""


class _Followed:
    """What is remembered of one instance between two epochs."""

    def __init__(self, clock: InstanceClock, one: PoolInstance, now_s: float) -> None:
        self.clock = clock
        self.hurried_at_s = self.asked_at_s = float("-inf")
        self.prompt_tokens_per_s = self.output_tokens_per_s = 0.0
        self.most_batched_tokens = one.status.max_batched_tokens if one.status is not None else 2048
        self._counted = (one.asked_tokens, self._generated(one))
        self._counted_at_s = now_s

    def count(self, one: PoolInstance, now_s: float) -> None:
        took_s = now_s - self._counted_at_s
        if took_s <= 0.0:
            return
        counted = (one.asked_tokens, self._generated(one))
        prompt, output = ((now - then) / took_s for now, then in zip(counted, self._counted, strict=True))
        self.prompt_tokens_per_s += _RATE_SHARE * (max(0.0, prompt) - self.prompt_tokens_per_s)
        self.output_tokens_per_s += _RATE_SHARE * (max(0.0, output) - self.output_tokens_per_s)
        self._counted, self._counted_at_s = counted, now_s

    def forgotten(self, now_s: float) -> bool:
        """An agent that was started again has given the clock back, and nobody told the instance."""
        return now_s - self.asked_at_s > _ASK_AGAIN_S

    @staticmethod
    def _generated(one: PoolInstance) -> int:
        return one.status.generated_tokens if one.status is not None else 0


class PoolClocks:
    def __init__(
        self, *, roster: Roster, watch: PoolWatch, clock: Clock, slo: Slo, config: ClockConfig, steer: bool
    ) -> None:
        """`steer` False: the layer is off, and only budgets move clocks."""
        self._roster, self._watch, self._clock, self._slo = roster, watch, clock, slo
        self._config, self._steer = config, steer
        self._followed: dict[int, _Followed] = {}
        self.budgets: Mapping[int, BudgetPlan] = {}
        """By job: what its pool's watt budget leaves it."""

        self.changes = 0
        self._told: dict[int, str] = {}
        self._switching: dict[int, asyncio.Future[None]] = {}

    async def epoch(self, serves: Mapping[RequestClass, RequestClass]) -> None:
        self._followed = {job: one for job, one in self._followed.items() if self._roster.get(job) is not None}
        self._told = {job: text for job, text in self._told.items() if job in self._followed}
        for one in list(self._roster):
            if one.alive and one.status is not None:
                await self._steer_one(one, serves, hurry=False)

    async def hurry(self, pools: Collection[RequestClass], serves: Mapping[RequestClass, RequestClass]) -> None:
        """First tokens will be late in these pools."""
        if not self._steer:
            return
        for one in list(self._roster):
            if one.accepts and one.status is not None and (one.pool in pools or self._roster.one_pool):
                followed = self._follow(one)
                if self._clock.now_s() - followed.hurried_at_s >= _HURRY_EVERY_S:
                    followed.hurried_at_s = self._clock.now_s()
                    await self._steer_one(one, serves, hurry=True)

    async def _steer_one(self, one: PoolInstance, serves: Mapping[RequestClass, RequestClass], *, hurry: bool) -> None:
        followed, budget = self._follow(one), self.budgets.get(one.job_id)
        followed.count(one, self._clock.now_s())
        most_mhz = None if budget is None else budget.clock_mhz
        self._observe(one, followed.clock)
        if self._steer:
            view = self._view(one, followed, serves)
            decide = followed.clock.raise_now if hurry else followed.clock.decide
            setting = decide(view, most_clock_mhz=most_mhz)
        else:
            highest = followed.clock.shard.clock.highest_mhz
            setting = Setting(min(highest, most_mhz or highest), followed.most_batched_tokens, 0.0)
        await self._apply(one, followed, setting, budget)

    def _follow(self, one: PoolInstance) -> _Followed:
        if one.job_id not in self._followed:
            clock = InstanceClock(self._watch.shard(one), self._config, self._slo)
            self._followed[one.job_id] = _Followed(clock, one, self._clock.now_s())
        return self._followed[one.job_id]

    def _observe(self, one: PoolInstance, clock: InstanceClock) -> None:
        """Half of all iterations compute no prompt: their time is what the profile says of decoding alone."""
        status = one.status
        if status is None or status.between_tokens_p50_s is None or not status.running:
            return
        foreseen_s = clock.shard.iteration_s(
            batch=status.running,
            context_tokens=status.used_tokens,
            prompt_tokens=0,
            clock_mhz=status.sm_clock_mhz or clock.shard.clock.highest_mhz,
        )
        clock.observe(foreseen_s=foreseen_s, seen_s=status.between_tokens_p50_s)

    def _view(
        self, one: PoolInstance, followed: _Followed, serves: Mapping[RequestClass, RequestClass]
    ) -> InstanceView:
        status, now_s = one.status, self._clock.now_s()
        assert status is not None, "asked by the callers"
        waiting = sorted((ticket.due_s - now_s, ticket.ask.prompt_tokens) for ticket in one.unbegun)
        mine = [each for each, pool in serves.items() if pool == one.pool or self._roster.one_pool]
        return InstanceView(
            batch=status.running,
            context_tokens=status.used_tokens,
            waiting=[WaitingPrompt(tokens, slack_s) for slack_s, tokens in waiting],
            prompt_tokens_per_s=followed.prompt_tokens_per_s,
            output_tokens_per_s=followed.output_tokens_per_s,
            sizes=frozenset(each.prompt for each in mine or serves),
        )

    async def _apply(self, one: PoolInstance, followed: _Followed, setting: Setting, budget: BudgetPlan | None) -> None:
        """One refusal stops nothing else; the next epoch tries again."""
        status, link = one.status, self._watch.link(one.job_id)
        if status is None or link is None:
            return
        highest = followed.clock.shard.clock.highest_mhz
        wanted_mhz = None if setting.clock_mhz >= highest else setting.clock_mhz
        seats = self._watch.most_seats if budget is None else min(self._watch.most_seats, budget.max_num_seqs)
        chunk = max(1, min(followed.most_batched_tokens, setting.chunk_tokens + status.running))
        try:
            if wanted_mhz != status.sm_clock_mhz or (
                wanted_mhz is not None and followed.forgotten(self._clock.now_s())
            ):
                followed.asked_at_s = self._clock.now_s()
                await link.set_clock_mhz(wanted_mhz)
                one.prefill_tokens_per_s = self._watch.prefill_tokens_per_s(one, wanted_mhz)
                one.status = status = replace(status, sm_clock_mhz=wanted_mhz)  # until it is looked at again
                self.changes += 1
            if seats != status.max_num_seqs or self._differs(chunk, status.max_batched_tokens):
                wanted_chunk = chunk if self._steer else None
                await link.set_limits(max_num_seqs=seats, max_batched_tokens=wanted_chunk)
                one.seats = seats
                tokens = wanted_chunk or status.max_batched_tokens
                one.status = status = replace(status, max_num_seqs=seats, max_batched_tokens=tokens)
        except SlurmPowerError as trouble:
            self._tell(one, trouble)
        wanted_model = self._watch.model if budget is None else budget.model
        if wanted_model != status.active_model and one.job_id not in self._switching:
            self._switching[one.job_id] = asyncio.ensure_future(self._switch(one, link, wanted_model))

    async def _switch(self, one: PoolInstance, link: ServingInstance, model: str) -> None:
        """Beside the epochs: reading a model may take minutes, and the old one serves on meanwhile."""
        try:
            await link.switch_model(model)
        except SlurmPowerError as trouble:
            self._tell(one, trouble)
        finally:
            self._switching.pop(one.job_id, None)

    def _tell(self, one: PoolInstance, trouble: SlurmPowerError) -> None:
        if self._told.get(one.job_id) != str(trouble):  # an agent that is away is away in every epoch
            log.warning("%s: %s", one.name, trouble)
        self._told[one.job_id] = self._watch.failures[one.name] = str(trouble)

    def _differs(self, chunk: int, now: int) -> bool:
        return self._steer and abs(chunk - now) > _CHUNK_STEP * now
