"""The managers of a replay: every five seconds each instance's clock, every five minutes the fleet.

The decisions are the product's; `Desk` and `Site` carry them out on instances in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from slurm_power.llm.fleet import Drain, FleetPlan, Present, Reassign, Start, actions, early_load, plan_fleet
from slurm_power.llm.operating_point import Load
from slurm_power.llm.request_class import RequestClass
from slurm_power.replay.serving.books import Books, Meter
from slurm_power.replay.serving.desk import Desk
from slurm_power.replay.serving.engine import Engine
from slurm_power.replay.serving.foresight import Forecaster, Oracle, SlotLoads
from slurm_power.replay.serving.member import Totals
from slurm_power.replay.serving.policies import SimulationConfig
from slurm_power.replay.serving.site import Site
from slurm_power.replay.serving.trace import Counts, Requests


class Managers:
    def __init__(
        self,
        requests: Requests,
        classes: Counts,
        outputs: Counts,
        config: SimulationConfig,
        *,
        books: Books,
        meter: Meter,
    ) -> None:
        self.config = config
        self._site = Site(config, books=books, meter=meter)
        self._desk = Desk(requests, classes, outputs, self._site.members, books)
        self._books = books
        self._forecast = _forecast(requests, classes, outputs, config)
        self._plan: FleetPlan | None = None
        self._foreseen: Mapping[RequestClass, Load] = {}
        self._lost_server_at_s = config.lost_server_at_s
        self.route = self._desk.route
        self._site.fill()
        self._desk.regroup()

    @property
    def engines(self) -> Mapping[int, Engine]:
        """Those that serve, by number."""
        return self._site.engines

    def tell(self, watch: Callable[[Engine], None]) -> None:
        """Who wants to know that an instance ends at another time than before."""
        self._desk.watch = watch

    def tick(self, now_s: float) -> None:
        policy, config = self.config.policy, self.config.fleet
        self._site.count(now_s)
        self._lose_server(now_s)
        if self._site.come_and_go(now_s):
            self._desk.regroup()
        self._desk.release_held(now_s)
        self._desk.close_epoch(self.config.clock.epoch_s)
        slot, rest = divmod(now_s, config.shard_s)
        if rest == 0.0 and now_s > 0.0:
            self._steer_fleet(int(slot), now_s)
        elif policy.instances and now_s % config.early_s == 0.0:
            self._look_early(now_s)
        if policy.clock:
            for member in self._site.members.values():
                if member.serving:
                    self._desk.steer_clock(member, now_s)

    def close(self) -> Totals:
        self._site.close()
        return self._site.totals(clock_changes=self._desk.clock_changes)

    def _lose_server(self, now_s: float) -> None:
        if self._lost_server_at_s is None or now_s < self._lost_server_at_s:
            return
        self._lost_server_at_s = None
        again = self._site.lose_server()
        self._desk.regroup()
        for request in again:
            self._desk.route(request, now_s, now_s)
        if self._plan is not None:
            self._follow(self._plan, now_s, may_shrink=False)

    def _steer_fleet(self, slot: int, now_s: float) -> None:
        policy, config = self.config.policy, self.config.fleet
        per_epoch = max(1, round(config.epoch_s / config.shard_s))
        new_epoch = slot % per_epoch == 1 or policy.knows_future
        load = self._forecast.load(slot, 2 if policy.knows_future else per_epoch)
        if not (policy.pools or policy.instances or policy.shard):
            return
        self._foreseen = load
        plan = self._plan_for(load)
        self._follow(
            plan, now_s, may_shrink=(policy.instances and new_epoch) or (policy.shard and not policy.instances)
        )

    def _look_early(self, now_s: float) -> None:
        load = early_load(self._foreseen, seen_tokens_per_s=self._desk.seen_tokens_per_s, config=self.config.fleet)
        if load is not None:
            self._follow(self._plan_for(load), now_s, may_shrink=False)

    def _plan_for(self, load: Mapping[RequestClass, Load]) -> FleetPlan:
        policy, config, profile = self.config.policy, self.config.fleet, self.config.profile
        fixed_gpus = self.config.servers * profile.gpus_per_server
        self._plan = plan_fleet(
            load,
            profile,
            replace(config, most_gpus=config.most_gpus if policy.instances else fixed_gpus),
            degrees=sorted(profile.shards) if policy.shard else [max(profile.shards)],
            before={} if self._plan is None else {pool: one.gpus for pool, one in self._plan.pools.items()},
            one_pool=not policy.pools,
            steered_clocks=policy.clock,
        )
        return self._plan

    def _follow(self, plan: FleetPlan, now_s: float, *, may_shrink: bool) -> None:
        present = [
            Present(number, one.pool, one.gpus, one.engine.requests, len(one.server.instances) - 1)
            for number, one in self._site.members.items()
            if not one.draining
        ]
        wanted = actions(plan, present, may_shrink=may_shrink)
        scales = self.config.policy.instances or self.config.policy.shard
        starting = any(not one.serving for one in self._site.members.values())
        for action in wanted:
            match action:
                case Start(pool, gpus) if scales:
                    self._site.start(pool, gpus, now_s)
                    starting = True
                case Reassign(number, pool):
                    self._site.members[number].pool = pool
                case _:
                    pass
        if scales and not starting:
            for action in wanted:
                if isinstance(action, Drain):
                    self._site.drain(action.number)
        self._desk.regroup(plan.serves)


def _forecast(requests: Requests, classes: Counts, outputs: Counts, config: SimulationConfig) -> Forecaster | Oracle:
    slot_s = config.arrivals.slot_s
    if config.policy.knows_future:
        return Oracle(SlotLoads(requests, classes, outputs, slot_s / Oracle.PIECES))
    return Forecaster(SlotLoads(requests, classes, outputs, slot_s), config.arrivals, dict(config.template))
