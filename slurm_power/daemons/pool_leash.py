"""The pool manager's side of watt budgets: reports what pools draw, and hands each instance what is left to it.

`llm.power_budget.obey` decides: clock before batch before model.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from slurm_power.daemons.pool_config import PoolConfig
from slurm_power.daemons.pool_roster import PoolInstance, Roster
from slurm_power.daemons.pool_watch import PoolWatch
from slurm_power.llm.pool_wire import Budget, PoolFigures, PoolReport
from slurm_power.llm.power_budget import BudgetPlan, PoolDraw, ServedModel, obey
from slurm_power.llm.profile import ServingProfile, ShardProfile
from slurm_power.ports.clock import Clock

log = logging.getLogger(__name__)


class PoolLeash:
    def __init__(
        self,
        config: PoolConfig,
        *,
        roster: Roster,
        watch: PoolWatch,
        small_profile: ServingProfile | None,
        clock: Clock,
    ) -> None:
        self._config, self._roster, self._watch, self._clock = config, roster, watch, clock
        self._small_profile = small_profile
        self._until: dict[str, tuple[float, float]] = {}  # pool -> watts, until
        self.shortfall_watts: dict[str, float] = {}

    def report(self) -> PoolReport:
        pools = self._by_pool()
        draws = tuple(self._draw(name, of) for name, of in pools.items())
        return PoolReport(self._config.owner, draws, {draw.name: _figures(draw, pools[draw.name]) for draw in draws})

    def take(self, budgets: Mapping[str, Budget]) -> bool:
        """What the controller answered; whether anything is new. What it no longer names has ended."""
        now_s = self._clock.now_s()
        before = {name: watts for name, (watts, _) in self._until.items()}
        self._until = {name: (one.watts, now_s + one.for_s) for name, one in budgets.items()}
        after = {name: watts for name, (watts, _) in self._until.items()}
        if before != after:
            log.info("watt budgets: %s", {name: f"{watts:.0f} W" for name, watts in after.items()} or "none")
        return before != after

    def budgets(self) -> dict[str, float]:
        """Those that hold: a budget ends by itself, not with the controller that gave it."""
        now_s = self._clock.now_s()
        return {name: watts for name, (watts, until_s) in self._until.items() if until_s > now_s}

    def plans(self) -> dict[int, BudgetPlan]:
        """By job. Instances of several degrees share their pool's watts by their GPUs."""
        found: dict[int, BudgetPlan] = {}
        self.shortfall_watts = {}
        budgets = self.budgets()
        for name, instances in self._by_pool().items():
            if name not in budgets:
                continue
            gpus = sum(one.gpus for one in instances)
            for degree in sorted({one.gpus for one in instances}):
                alike = [one for one in instances if one.gpus == degree]
                plan = self._obey(alike, budgets[name] * degree * len(alike) / gpus)
                found |= {one.job_id: plan for one in alike}
                self.shortfall_watts[name] = self.shortfall_watts.get(name, 0.0) + plan.shortfall_watts
        return found

    def _obey(self, alike: list[PoolInstance], budget_watts: float) -> BudgetPlan:
        shard = self._watch.shard(alike[0])
        models = [ServedModel(self._watch.model, shard)]
        small = self._small_shard(alike[0].gpus)
        if small is not None:
            models.append(ServedModel(Path(self._config.small_model).resolve().name, small))
        seats = self._config.max_num_seqs
        return obey(models, instances=len(alike), budget_watts=budget_watts, max_num_seqs=seats)

    def _small_shard(self, gpus: int) -> ShardProfile | None:
        if self._small_profile is None or not self._config.small_model:
            return None
        known = self._small_profile.shards
        return known.get(gpus) or known[min(known)]

    def _draw(self, name: str, instances: list[PoolInstance]) -> PoolDraw:
        """An instance that does not say what it draws counts as drawing what the profile says."""
        drawn = least = 0.0
        for one in instances:
            shard = self._watch.shard(one)
            small = self._small_shard(one.gpus)
            lowest = shard.clocks_mhz[0]
            told = one.status.draw_watts if one.status is not None else None
            running = one.status.running if one.status is not None else 0
            drawn += told if told is not None else shard.draw_watts(clock_mhz=shard.clock.highest_mhz, batch=running)
            shards = (shard,) if small is None else (shard, small)
            least += min(each.draw_watts(clock_mhz=lowest, batch=1) for each in shards)
        return PoolDraw(name, drawn, min(drawn, least))

    def _by_pool(self) -> dict[str, list[PoolInstance]]:
        found: dict[str, list[PoolInstance]] = {}
        for one in self._roster:
            if one.url:
                found.setdefault(f"{self._config.owner}/{one.pool.name}", []).append(one)
        return found


def _figures(draw: PoolDraw, instances: list[PoolInstance]) -> PoolFigures:
    known = [one.status for one in instances if one.status is not None]
    tokens_per_s = sum(one.tokens_per_s for one in known)
    return PoolFigures(
        instances=len(instances),
        clock_mhz=max((one.sm_clock_mhz for one in known if one.sm_clock_mhz is not None), default=None),
        slack_s=min((one.least_slack_s for one in known if one.least_slack_s is not None), default=None),
        tokens_per_s=tokens_per_s if known else None,
        joules_per_token=draw.draw_watts / tokens_per_s if tokens_per_s > 0 else None,
    )
