"""The pool manager: one loop, three layers. Each step of it is a file of its own, and decides nothing here.

look -> (cluster) plan and hold to it -> (instance) clocks -> report and obey -> (queue) emergencies, ten times a second
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from slurm_power.daemons.pool_clocks import PoolClocks
from slurm_power.daemons.pool_config import PoolConfig
from slurm_power.daemons.pool_leash import PoolLeash
from slurm_power.daemons.pool_roster import PoolInstance, Roster
from slurm_power.daemons.pool_sizes import PoolSizes
from slurm_power.daemons.pool_state import PoolState, save_state
from slurm_power.daemons.pool_watch import PoolWatch
from slurm_power.daemons.router_desk import Desk
from slurm_power.errors import SlurmPowerError
from slurm_power.llm.request_class import RequestClass
from slurm_power.ports.journal import Journal
from slurm_power.ports.pool_link import PoolLink

log = logging.getLogger(__name__)

_EMERGENCY_PERIOD_S = 0.1
_SAVE_PERIOD_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolParts:
    config: PoolConfig
    roster: Roster
    desk: Desk
    watch: PoolWatch
    sizes: PoolSizes
    clocks: PoolClocks
    leash: PoolLeash
    link: PoolLink | None
    journal: Journal
    on_look: Callable[[], None]  # whatever else is to be read anew


class PoolManager:
    def __init__(self, parts: PoolParts) -> None:
        self._parts = parts
        self._hurried: set[RequestClass] = set()
        self._hurry, self._steering = asyncio.Event(), asyncio.Lock()
        self.failures: dict[str, str] = {}

    def hurry(self, pools: frozenset[RequestClass]) -> None:
        """The desk's cry: first tokens will be late there."""
        self._hurried |= pools
        self._hurry.set()

    async def run(self) -> None:
        """Until cancelled; then what was learnt is kept. Jobs go on: the next manager finds them."""
        config = self._parts.config
        rounds = (
            self._every("look", config.watch_period_s, self.look),
            self._every("instances", config.instance_period_s, self.instances),
            self._every("emergencies", _EMERGENCY_PERIOD_S, self.emergencies),
            self._every("report", config.report_period_s, self.report),
            self._every("save", _SAVE_PERIOD_S, self.save),
            self._hurry_up(),
        )
        try:
            await asyncio.gather(*rounds)
        finally:
            await self.save()

    async def look(self) -> None:
        parts = self._parts
        parts.on_look()
        await parts.watch.look()
        parts.sizes.epoch()
        await parts.sizes.hold_to_plan()
        parts.desk.iteration_tokens = max(
            (one.status.max_batched_tokens for one in parts.roster if one.status is not None), default=2048
        )
        parts.desk.offer_places()

    async def instances(self) -> None:
        async with self._steering:
            self._parts.clocks.budgets = self._parts.leash.plans()
            await self._parts.clocks.epoch(self._parts.desk.serves)

    async def emergencies(self) -> None:
        self._parts.desk.look_at_emergencies()

    async def report(self) -> None:
        """New budgets are obeyed at once, not in the next epoch."""
        if self._parts.link is None:
            return
        budgets = await asyncio.to_thread(self._parts.link.exchange, self._parts.leash.report())
        if self._parts.leash.take(budgets):
            await self.instances()

    async def save(self) -> None:
        parts = self._parts
        pools = {one.job_id: one.pool for one in parts.roster}
        state = PoolState(parts.desk.lengths, parts.sizes.template, pools)
        await asyncio.to_thread(save_state, parts.journal, state)

    async def _hurry_up(self) -> None:
        while True:
            await self._hurry.wait()
            self._hurry.clear()
            pools, self._hurried = frozenset(self._hurried), set()
            try:
                async with self._steering:
                    await self._parts.clocks.hurry(pools, self._parts.desk.serves)
            except SlurmPowerError as trouble:
                log.warning("clocks: %s", trouble)

    async def _every(self, name: str, period_s: float, step: Callable[[], Awaitable[None]]) -> None:
        """A bad round must not end the others, nor the daemon."""
        while True:
            try:
                await step()
                self.failures.pop(name, None)
            except SlurmPowerError as trouble:
                if self.failures.get(name) != str(trouble):
                    log.warning("%s: %s", name, trouble)
                self.failures[name] = str(trouble)
            except Exception:  # the daemon's outermost loop
                log.exception("%s failed; the next round tries again", name)
                self.failures[name] = "failed: see the log"
            await asyncio.sleep(period_s)

    # --- what others see

    def models(self) -> Mapping[str, bool]:
        serves = self._parts.roster.serving() > 0
        names = self._parts.watch.models or (self._parts.config.served_model_name,)
        return dict.fromkeys(names, serves)

    def view(self) -> dict[str, Any]:
        parts = self._parts
        plan = parts.sizes.plan
        return {
            "owner": parts.config.owner,
            "plan": {pool.name: {"instances": each.instances, "gpus": each.gpus} for pool, each in plan.pools.items()}
            if plan is not None
            else None,
            "serves": {one.name: pool.name for one, pool in parts.desk.serves.items()},
            "instances": [_shown(one) for one in parts.roster],
            "budgets_watts": parts.leash.budgets(),
            "shortfall_watts": parts.leash.shortfall_watts,
            "started": parts.sizes.started,
            "ended": parts.sizes.ended,
            "lost": parts.watch.lost,
            "clock_changes": parts.clocks.changes,
            "energy_joules": parts.watch.energy_joules,
            "failures": {**self.failures, **parts.watch.failures},
        }


def _shown(one: PoolInstance) -> dict[str, Any]:
    status = one.status
    return {
        "job_id": one.job_id,
        "pool": one.pool.name,
        "gpus": one.gpus,
        "url": one.url,
        "accepts": one.accepts,
        "ends": one.ends,
        "left_s": one.left_s,
        "requests": one.requests,
        "served": one.served,
        "seats": one.seats,
        "clock_mhz": None if status is None else status.sm_clock_mhz,
        "model": None if status is None else status.active_model,
        "draw_watts": None if status is None else status.draw_watts,
        "tokens_per_s": None if status is None else status.tokens_per_s,
    }
