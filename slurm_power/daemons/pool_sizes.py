"""The cluster layer: counts arrivals, foresees them, and brings the instances there are to those that are planned.

`llm.arrivals` foresees and `llm.fleet` decides. What is planned is held to in every look, so that a job that was lost
is started again; nothing is drained while something else still starts.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping

from slurm_power.daemons.pool_config import PoolConfig
from slurm_power.daemons.pool_roster import PoolInstance, Roster
from slurm_power.daemons.pool_watch import PoolWatch
from slurm_power.daemons.router_desk import Desk
from slurm_power.errors import SlurmPowerError
from slurm_power.llm.arrivals import ArrivalConfig, ArrivalForecast
from slurm_power.llm.fixed_pools import plan_fixed_pools
from slurm_power.llm.fleet import Drain, FleetConfig, FleetPlan, PoolPlan, Present, Reassign, Start, actions, plan_fleet
from slurm_power.llm.operating_point import Load
from slurm_power.llm.profile import ServingProfile
from slurm_power.llm.request_class import REQUEST_CLASSES, RequestClass, class_named
from slurm_power.llm.routing import LARGEST
from slurm_power.ports.clock import Clock
from slurm_power.ports.serving_jobs import ServingJobs

log = logging.getLogger(__name__)

_FIRST_PAUSE_S, _MOST_PAUSE_S = 10.0, 600.0
"""Before another start, when jobs end without ever having served."""

_LATELY_S = 60.0
_LEAST_TOKENS_PER_S = 1.0
_WEEK_S = 7 * 86_400.0
_LOOK_S, _END_AGAIN_S = 0.2, 60.0


class PoolSizes:
    def __init__(
        self,
        config: PoolConfig,
        *,
        roster: Roster,
        desk: Desk,
        watch: PoolWatch,
        jobs: ServingJobs,
        profile: ServingProfile,
        clock: Clock,
        layers: frozenset[str],
        template: Mapping[int, float],
    ) -> None:
        self._config, self._roster, self._desk, self._watch, self._jobs = config, roster, desk, watch, jobs
        self._profile, self._clock, self._layers = profile, clock, layers
        self.template = dict(template)
        """Slot of the week -> tokens per second: what is kept over a restart."""

        self._forecast = ArrivalForecast(
            ArrivalConfig(slot_s=config.slot_s, slots_per_week=max(1, round(_WEEK_S / config.slot_s))),
            template=template,
        )
        self._fleet = FleetConfig(
            epoch_s=config.cluster_period_s,
            most_gpus=config.most_instances * config.gpus_per_instance,
            least_instances=config.least_instances,
        )
        self._degrees = config.degrees or (config.gpus_per_instance,)
        self._has_arrivals = False
        self._counted = self._counters()
        self._counted_at_s = clock.now_s()
        self._seen: deque[tuple[float, dict[RequestClass, tuple[int, int, int]]]] = deque(maxlen=512)
        self._planned_at_s: float | None = None
        self._planned_load = 0.0
        self.plan: FleetPlan | None = None
        self._pause_s, self._not_before_s = _FIRST_PAUSE_S, 0.0
        self._starting: set[int] = set()
        self._ending: dict[int, asyncio.Future[None]] = {}
        self.started = self.ended = 0

    # --- arrivals

    def count(self) -> None:
        """Called at least once a slot."""
        now_s = self._clock.now_s()
        took_s = now_s - self._counted_at_s
        if took_s < self._config.slot_s:
            return
        counters = self._counters()
        seen = {one: _load(self._counted[one], counters[one], took_s) for one in REQUEST_CLASSES}
        self._counted, self._counted_at_s = counters, now_s
        slot, tokens = self._slot() - 1, _tokens_per_s(seen)
        self._has_arrivals |= tokens > 0.0
        if not self._has_arrivals:  # a class's share of nothing is not known
            return
        self._forecast.learn(slot, seen)
        place = slot % self._forecast.config.slots_per_week
        self.template[place] = self.template.get(place, tokens) * 0.7 + tokens * 0.3

    def _slot(self) -> int:
        return int(self._clock.wall_s() // self._config.slot_s)

    def _counters(self) -> dict[RequestClass, tuple[int, int, int]]:
        return {
            one: (each.arrived, each.arrived_tokens, each.output_tokens) for one, each in self._desk.figures.of.items()
        }

    # --- planning

    def epoch(self) -> None:
        """Plans anew when it is time, or at once for more when the load has grown."""
        self.count()
        now_s = self._clock.now_s()
        if self._planned_at_s is None or now_s - self._planned_at_s >= self._config.cluster_period_s:
            self._make_plan(may_shrink=True)
            self._planned_at_s = now_s
            return
        lately = self._lately()
        if _tokens_per_s(lately) > max(_LEAST_TOKENS_PER_S, self._planned_load * (1.0 + self._config.early_fraction)):
            self._make_plan(may_shrink=False, lately=lately)

    def _lately(self) -> dict[RequestClass, Load]:
        """Arrivals of the last minute: nobody waits for the end of a slot when they double."""
        now_s = self._clock.now_s()
        self._seen.append((now_s, self._counters()))
        while len(self._seen) > 2 and now_s - self._seen[0][0] > min(_LATELY_S, self._config.slot_s):
            self._seen.popleft()
        (since_s, before), (_, now) = self._seen[0], self._seen[-1]
        if now_s - since_s <= 0.0:
            return {}
        return {one: _load(before[one], now[one], now_s - since_s) for one in REQUEST_CLASSES}

    def _make_plan(self, *, may_shrink: bool, lately: Mapping[RequestClass, Load] | None = None) -> None:
        slots = max(1, round(self._config.cluster_period_s / self._config.slot_s))
        load = self._forecast.foresee(self._slot(), slots)
        if lately is not None and _tokens_per_s(lately) > _tokens_per_s(load):
            load = dict(lately)
        self._planned_load = _tokens_per_s(load)
        plan = self._planned(load)
        if "cluster" not in self._layers:
            plan = _all_on(plan, self._config)
        elif not may_shrink and self.plan is not None and _gpus(plan) < _gpus(self.plan):
            return
        changes = self.plan is None or _shape(plan) != _shape(self.plan)
        self.plan = plan
        self._desk.serves = dict(plan.serves)
        if changes:
            log.info("plan for %.0f tokens/s: %s", self._planned_load, ", ".join(_shape(plan)))

    def _planned(self, load: Mapping[RequestClass, Load]) -> FleetPlan:
        steered_clocks = "instance" in self._layers
        if self._config.pools and "queue" in self._layers:
            named = [class_named(name) for name in self._config.pools]
            return plan_fixed_pools(
                load, named, self._profile, self._fleet, degrees=self._degrees, steered_clocks=steered_clocks
            )
        return plan_fleet(
            load,
            self._profile,
            self._fleet,
            degrees=self._degrees,
            before={one.pool: one.gpus for one in self._roster if not one.ends},
            one_pool="queue" not in self._layers,
            steered_clocks=steered_clocks,
        )

    # --- acting

    async def hold_to_plan(self) -> None:
        """Called after every look at the jobs."""
        self._note_starts()
        self._forget_ended()
        self.end_again()
        if self.plan is None:
            return
        staying = [one for one in self._roster if not one.ends and not one.leaves]
        present = [Present(one.job_id, one.pool, one.gpus, one.requests) for one in staying]
        for action in actions(self.plan, present, may_shrink=not self._starting):
            match action:
                case Start(pool, gpus):
                    await self._start(pool, gpus)
                case Reassign(number, pool):
                    self._reassign(number, pool)
                case Drain(number):
                    self._drain(number)
        self._relieve(self.plan, serving_gpus=sum(one.gpus for one in staying if one.accepts))
        self._roster.regroup()

    def _relieve(self, plan: FleetPlan, *, serving_gpus: int) -> None:
        """Who leaves soon is drained once the others serve all that is planned; or, when its relief should serve by now
        and does not, to leave it the GPUs."""
        for one in [one for one in self._roster if one.leaves and not one.ends]:
            is_late = one.relief_s is not None and one.relief_s < -self._watch.start_s
            if serving_gpus >= plan.gpus or is_late:
                log.info("instance %s has %.0f s left and is relieved", one.name, one.left_s or 0.0)
                self._drain(one.job_id)

    async def _start(self, pool: RequestClass, gpus: int) -> None:
        if self._clock.now_s() < self._not_before_s:
            return
        try:
            job_id = await asyncio.to_thread(self._jobs.start, pool.name, gpus=gpus)
        except SlurmPowerError as trouble:
            self._pause(str(trouble))
            return
        log.info("started instance %s-%d of %d GPUs", pool.name, job_id, gpus)
        self.started += 1
        self._starting.add(job_id)
        self._watch.expect(job_id, pool, gpus)

    def _note_starts(self) -> None:
        """Who serves now has started; who is gone, or takes too long, has not."""
        now_s = self._clock.now_s()
        for job_id in list(self._starting):
            one = self._roster.get(job_id)
            if one is not None and one.accepts:
                self._pause_s, self._not_before_s = _FIRST_PAUSE_S, 0.0
            elif one is None:
                self._pause("a job ended before it served")
            elif one.running and now_s - one.since_s > self._config.start_timeout_s:
                self._pause(f"{one.name} does not serve after {self._config.start_timeout_s:g} s")
                self._drain(job_id)
            else:
                continue
            self._starting.discard(job_id)

    def _pause(self, why: str) -> None:
        log.warning("the next start waits %.0f s: %s", self._pause_s, why)
        self._watch.failures["start"] = why
        self._not_before_s = self._clock.now_s() + self._pause_s
        self._pause_s = min(_MOST_PAUSE_S, 2.0 * self._pause_s)

    def _reassign(self, number: int, pool: RequestClass) -> None:
        one = self._roster.get(number)
        if one is not None:
            one.pool = pool

    def _drain(self, number: int) -> None:
        """It takes nothing new from now on; the job ends when what it has is done, or has had its time."""
        one = self._roster.get(number)
        if one is None or number in self._ending:
            return
        one.ends = True
        self._roster.regroup()
        self._ending[number] = asyncio.ensure_future(self._end(one))

    async def _end(self, one: PoolInstance) -> None:
        """Stays in the table until the job is gone: told again at once, it would break off what still runs."""
        until_s = self._clock.now_s() + self._config.drain_s
        while one.requests and self._clock.now_s() < until_s:
            await asyncio.sleep(_LOOK_S)
        try:
            await asyncio.to_thread(self._jobs.end, one.job_id)
            self.ended += 1
            log.info("ended instance %s", one.name)
            await asyncio.sleep(self._config.drain_s + _END_AGAIN_S)
        except SlurmPowerError as trouble:
            log.warning("%s: %s; the next look tries again", one.name, trouble)
        finally:
            self._ending.pop(one.job_id, None)

    def _forget_ended(self) -> None:
        for job_id, task in list(self._ending.items()):
            if self._roster.get(job_id) is None:
                task.cancel()

    def end_again(self) -> None:
        """Instances that were told to end, by us or by a manager before us, and are still there."""
        for one in list(self._roster):
            if one.ends and one.job_id not in self._ending:
                self._drain(one.job_id)


def _tokens_per_s(load: Mapping[RequestClass, Load]) -> float:
    return sum(each.prompt_tokens_per_s + each.output_tokens_per_s for each in load.values())


def _load(before: tuple[int, int, int], now: tuple[int, int, int], took_s: float) -> Load:
    requests, prompt, output = ((later - earlier) / took_s for earlier, later in zip(before, now, strict=True))
    return Load(requests, prompt, output)


def _shape(plan: FleetPlan) -> list[str]:
    return [f"{pool.name} {each.instances} x {each.gpus} GPUs" for pool, each in plan.pools.items()]


def _gpus(plan: FleetPlan) -> int:
    return sum(each.gpus * each.instances for each in plan.pools.values())


def _all_on(plan: FleetPlan, config: PoolConfig) -> FleetPlan:
    """Without the cluster layer all instances run; what the plan does not need is the largest pool's."""
    pools: dict[RequestClass, PoolPlan] = {}
    left = config.most_instances
    for pool, each in sorted(plan.pools.items(), key=lambda item: item[0]):
        count = min(each.instances, left - 1) if pool != LARGEST else 0
        if count > 0:
            pools[pool] = PoolPlan(config.gpus_per_instance, count, each.load, each.watts)
            left -= count
    largest = plan.pools.get(LARGEST, PoolPlan(config.gpus_per_instance, 0, Load(), 0.0))
    pools[LARGEST] = PoolPlan(config.gpus_per_instance, left, largest.load, largest.watts)
    return FleetPlan(pools, plan.serves, plan.shortfall_gpus)
