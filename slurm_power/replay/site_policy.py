"""The product on the twin: forecast, plan, battery, caps and licences at each slot, by the code of the controller.

Only what stands between that code and Slurm is other: a job of the twin becomes the JobPower that the controller makes
of job, mark and readings; caps and room become the twin's orders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from slurm_power.ess.battery import BatteryLimits
from slurm_power.ess.demand_ledger import DemandLedger
from slurm_power.ess.dispatch import plan_dispatch
from slurm_power.ess.grid_event import GridEvent
from slurm_power.ess.guard import SiteLimits
from slurm_power.ess.plan import DispatchPlan, PlanSlot
from slurm_power.ess.planner_config import PlannerConfig
from slurm_power.ess.rates import Rates
from slurm_power.ess.setpoint import EssSetpoint
from slurm_power.forecasting.forecast import Forecaster, LoadForecast, Sample, certain_forecast
from slurm_power.forecasting.jobs import MAX_PENDING
from slurm_power.relocation.caps import plan_caps
from slurm_power.relocation.job_mark import JobMark
from slurm_power.relocation.job_power import JobPower
from slurm_power.relocation.jobs import Job, JobState, PowerRequest
from slurm_power.relocation.requeue import plan_requeues
from slurm_power.relocation.room import room_of
from slurm_power.relocation.settings import RelocationConfig
from slurm_power.replay.job_table import CLASSES
from slurm_power.replay.policy import JobColumns, Orders, View
from slurm_power.replay.site_load import followed

HISTORY_SLOTS = 21 * 96
_LEAST_HISTORY_SLOTS = 4
"""Before, nothing can be forecast, and nobody is touched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSetup:
    start_wall_s: float  # of the trace's second 0
    rates: Rates
    site: SiteLimits
    battery: BatteryLimits | None  # None: the site has none
    planner: PlannerConfig
    relocation: RelocationConfig
    caps: bool = True
    deferral: bool = True
    requeues: bool = False
    events: tuple[GridEvent, ...] = ()


class SitePolicy:
    """Decides for the twin as the controller would; `import_watts` holds what the site drew in each slot."""

    def __init__(self, setup: SiteSetup, forecaster: Forecaster) -> None:
        self._forecaster = forecaster
        # The twin's slots are as long as one command of the battery here.
        self._setup = replace(setup, site=replace(setup.site, command_s=setup.planner.slot_s))
        self.import_watts: list[float] = []
        self.ledger = DemandLedger()
        self._stored = 0.0 if setup.battery is None else setup.battery.half_full_joules
        self._plan: DispatchPlan | None = None
        self._caps: dict[int, float] = {}
        self._held_back_watts: dict[int, float] = {}
        """By slot, what jobs wanted beyond what they drew: tomorrow's forecast is made from what was wanted."""

    def decide(self, view: View) -> Orders:
        self.settle(view.slot_watts)
        setup, wall_s = self._setup, self._setup.start_wall_s + view.now_s
        if view.slot < _LEAST_HISTORY_SLOTS:
            return Orders()
        oldest = max(0, view.slot - HISTORY_SLOTS)
        history = [
            Sample(setup.start_wall_s + i * setup.planner.slot_s, watts + self._held_back_watts.get(i, 0.0))
            for i, watts in enumerate(view.slot_watts[oldest:], start=oldest)
        ]
        powers = self._powers(view.running, JobState.RUNNING)
        firm_watts = view.idle_watts + sum(self._firm_watts(power) for power in powers)
        it = self._forecaster.forecast(history, start_wall_s=wall_s, slots=setup.planner.slots)
        nothing = (0.0,) * setup.planner.slots
        building = certain_forecast(nothing, start_wall_s=wall_s, slot_s=setup.planner.slot_s, model="IT alone")
        self._plan = plan = plan_dispatch(
            LoadForecast(building, it),
            rates=setup.rates,
            ledger=self.ledger,
            battery=setup.battery or _NO_BATTERY,
            site=setup.site,
            config=setup.planner,
            now_wall_s=wall_s,
            stored_joules=None if setup.battery is None else self._stored,
            it_firm_watts=[firm_watts] * setup.planner.slots,
            events=setup.events,
        )
        return self._orders(view, powers, plan, wall_s)

    def settle(self, slot_watts: Sequence[float]) -> None:
        """What the battery made of the slots that are over, and what they set; after the run for the last one, too."""
        setup = self._setup
        for index in range(len(self.import_watts), len(slot_watts)):
            start_s = setup.start_wall_s + index * setup.planner.slot_s
            load_watts = setup.site.pue * slot_watts[index]
            setpoint = EssSetpoint()
            if self._plan is not None and setup.battery is not None:
                setpoint, self._stored = followed(
                    self._plan,
                    battery=setup.battery,
                    site=setup.site,
                    start_s=start_s,
                    load_watts=load_watts,
                    stored_joules=self._stored,
                )
            watts = load_watts + setpoint.charge_watts - setpoint.discharge_watts
            self.ledger = self.ledger.with_interval(setup.rates, start_wall_s=start_s, watts=watts)
            self.import_watts.append(watts)

    def _orders(self, view: View, powers: Sequence[JobPower], plan: DispatchPlan, wall_s: float) -> Orders:
        setup, now = self._setup, plan.slots[0]
        requeues: list[int] = []
        self._caps = {}
        if setup.caps:
            held_back = sum(self._held_back(power) for power in powers)
            excess = view.it_watts + held_back - now.envelope_watts
            caps = plan_caps(powers, excess_watts=excess, reason="the envelope", config=setup.relocation)
            self._caps = caps.caps
            if setup.requeues and caps.exhausted:
                gone = plan_requeues(
                    powers, uncovered_watts=caps.uncovered_watts, wall_s=wall_s, config=setup.relocation
                )
                requeues = [action.job_id for action in gone]
        pending = view.pending
        late = pending.bound & (view.now_s - pending.submit_s >= pending.max_delay_s)
        budget = self._budget(view, pending, powers, plan.slots, wall_s) if setup.deferral else None
        self._held_back_watts[view.slot] = self._wanted_beyond(view, pending, powers)
        return Orders(
            budget_watts=budget,
            caps=self._caps,
            requeues=requeues,
            freed=pending.job_id[late].tolist() if setup.deferral else (),
        )

    def _wanted_beyond(self, view: View, pending: JobColumns, powers: Sequence[JobPower]) -> float:
        """What our caps keep away, and what jobs that wait for watts would draw on GPUs that are free for them."""
        capped_watts = sum(
            power.busy_gpus * max(0.0, power.gpu_watts - self._caps.get(power.job.job_id, power.gpu_watts))
            for power in powers
        )
        waits = pending.bound & (view.now_s - pending.submit_s >= self._setup.planner.slot_s)
        gpus = int(pending.gpus[waits].sum())
        if not self._setup.deferral or not gpus:
            return capped_watts
        per_gpu_watts = float(pending.uncapped_watts[waits].sum()) / gpus - self._setup.relocation.gpu_idle_watts
        return capped_watts + min(view.free_gpus, gpus) * max(0.0, per_gpu_watts)

    def _budget(
        self, view: View, pending: JobColumns, powers: Sequence[JobPower], slots: Sequence[PlanSlot], wall_s: float
    ) -> list[float]:
        """Licensed watts that jobs other than firm ones may hold in each slot."""
        config = self._setup.relocation
        firm = [power for power in powers if power.license_name == config.firm_license_name]
        firm_rows = np.flatnonzero(~pending.bound)[:MAX_PENDING].tolist()
        waiting_firm = [self._power(pending, i, JobState.PENDING) for i in firm_rows]
        room = room_of(
            slots,
            [*firm, *waiting_firm],
            idle_watts=view.idle_watts,
            free_gpus=view.free_gpus,
            wall_s=wall_s,
            config=config,
        )
        watts: list[float] = room.available_watts.tolist()
        return watts

    def _powers(self, jobs: JobColumns, state: JobState) -> list[JobPower]:
        return [self._power(jobs, i, state) for i in range(len(jobs))]

    def _power(self, jobs: JobColumns, i: int, state: JobState) -> JobPower:
        setup, job_id = self._setup, int(jobs.job_id[i])
        gpu_watts = float(jobs.uncapped_gpu_watts[i])
        power_class = CLASSES[int(jobs.power_class[i])]
        limit_s = float(jobs.time_limit_s[i])
        config = setup.relocation
        name = config.license_name if jobs.bound[i] else config.firm_license_name
        licensed = float(jobs.licensed_watts[i])
        capped = self._caps.get(job_id) if state is JobState.RUNNING else None
        started = float(jobs.start_s[i])
        job = Job(
            job_id=job_id,
            user_name="",
            uid=0,
            name="",
            partition="",
            state=state,
            state_reason="None",
            gpus=int(jobs.gpus[i]),
            node_names=(),
            submit_wall_s=setup.start_wall_s + float(jobs.submit_s[i]),
            begin_wall_s=None,
            start_wall_s=None if np.isnan(started) else setup.start_wall_s + started,
            time_limit_s=None if np.isinf(limit_s) else limit_s,
            licenses={name: round(licensed)},
            batch=True,
            requeueable=True,
            admin_comment="",
        )
        mark = JobMark(
            request=PowerRequest(
                power_class=power_class,
                max_slowdown_fraction=float(jobs.max_slowdown_fraction[i]),
                max_delay_s=float(jobs.max_delay_s[i]),
            ),
            capped_watts=capped,
            drawn_watts=gpu_watts if capped is not None else None,
            requeued=int(jobs.requeues[i]),
        )
        return JobPower(
            job=job,
            mark=mark,
            power_class=power_class,
            license_name=name,
            licensed_watts=licensed,
            gpu_watts=gpu_watts,
            busy_gpus=float(jobs.gpus[i]),
            drawn_gpu_watts=None,
            lowest_cap_watts=float(jobs.lowest_cap_watts[i]),
        )

    def _held_back(self, power: JobPower) -> float:
        """What our cap keeps the job from drawing now."""
        if power.mark.capped_watts is None:
            return 0.0
        return power.busy_gpus * max(0.0, power.gpu_watts - power.mark.capped_watts)

    def _firm_watts(self, power: JobPower) -> float:
        """What no cap takes away."""
        gpu_watts = power.gpu_watts
        if power.touchable and self._setup.caps and power.lowest_cap_watts is not None:
            gpu_watts = min(gpu_watts, power.lowest_cap_watts)
        each_watts = power.mark.capped_watts or self._setup.relocation.gpu_max_watts  # a cap shrinks the licence
        base = power.licensed_watts - power.job.gpus * each_watts
        return power.busy_gpus * gpu_watts + max(0.0, base)


_NO_BATTERY = BatteryLimits(
    capacity_joules=1.0,
    max_charge_watts=0.0,
    max_discharge_watts=0.0,
    min_stored_fraction=0.0,
    max_stored_fraction=1.0,
    reserve_fraction=0.0,
)
