"""A made-up site of any size behind the real views: what the dashboard is tried with. Its figures mean nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slurm_power.daemons.billing_state import BillingState
from slurm_power.daemons.controller_config import ControllerConfig
from slurm_power.daemons.controller_view import (
    ControllerView,
    Event,
    FastView,
    Picture,
    events_json,
    jobs_json,
    status_json,
)
from slurm_power.daemons.live_views import LiveViews, new_trail
from slurm_power.daemons.overrides import Overrides
from slurm_power.ess.plan import DispatchPlan, PlanSlot
from slurm_power.ess.tariff import EnergyPrice, Tariff
from slurm_power.forecasting.forecast import QUANTILES, LoadForecast, SeriesForecast
from slurm_power.monitoring.readings import EssReading, GpuReading, GridReading, NodeReading, Snapshot
from slurm_power.relocation.job_mark import JobMark, with_mark
from slurm_power.relocation.jobs import Job, JobState, PowerClass, PowerRequest
from slurm_power.testing.fake_journal import FakeJournal

NOON_WALL_S = 1_767_960_000.0  # 2026-01-09 12:00 UTC
SLOT_S, SLOTS = 900.0, 96
PUE = 1.3
HOSTILE = "<img src=x onerror=document.title='owned'><script>document.title='owned'</script>"

TARIFF = Tariff(
    currency="EUR",
    energy_prices=(
        EnergyPrice(start_s=0.0, price_per_kwh=0.09),
        EnergyPrice(start_s=57_600.0, price_per_kwh=0.17),
        EnergyPrice(start_s=75_600.0, price_per_kwh=0.09),
    ),
    demand_price_per_kw=15.0,
    anchor_wall_s=1_767_222_000.0,
)


class MadeUpSite:
    """What slurm-powerd would know; `import_watts` can be changed while it is watched."""

    def __init__(
        self,
        *,
        nodes: int = 16,
        gpus: int = 8,
        wall_s: Callable[[], float] = lambda: NOON_WALL_S,
        start_wall_s: float = NOON_WALL_S,
        pools: list[dict[str, Any]] | None = None,
    ) -> None:
        self.nodes, self.gpus, self.pools = nodes, gpus, pools
        self._wall_s, self._start_s = wall_s, start_wall_s
        self.it_watts = nodes * (1700.0 + gpus * 480.0)
        self.import_watts = self.building_watts(start_wall_s) + PUE * self.it_watts - 800.0 * nodes
        self.peak_watts = 1.03 * self.import_watts
        self.failures: dict[str, str] = {}
        self.decided: list[Event] = _events(start_wall_s)
        self.overrides = Overrides()
        self.trail = new_trail(ControllerConfig(state_path=Path("unused")), horizon_s=SLOT_S * SLOTS)
        self._fill_trail()
        self.billing = self._past_bill()
        self.live = LiveViews(self.picture, trail=self.trail, billing=self.billing, rates=TARIFF, pue=PUE)

    def asks(self) -> dict[str, Callable[[], Any]]:
        return {**self.live.asks(), "pools": lambda: self.pools}

    def building_watts(self, wall_s: float) -> float:
        return self.nodes * 260.0 * (10 + 2 * math.sin((wall_s - NOON_WALL_S) / 86_400 * 2 * math.pi + 0.6))

    def picture(self) -> Picture:
        now_s = wall_s = self._wall_s()
        nodes = {f"gpu{i + 1:04d}": self._node(i, now_s) for i in range(self.nodes)}
        silent = {"gpu0003"} if self.nodes > 8 else set()
        return Picture(
            view=self._view(wall_s),
            fast=FastView(
                grid=GridReading(self.import_watts, 0.0, now_s - 0.7),
                ess=EssReading(
                    0.64,
                    0.97,
                    3.6e8 * self.nodes,
                    4e3 * self.nodes,
                    4e3 * self.nodes,
                    0.0,
                    800.0 * self.nodes,
                    True,
                    (),
                    now_s - 0.7,
                ),
                interval_average_watts=0.99 * self.import_watts,
                interval_remaining_s=412.0,
                peak_watts=self.peak_watts,
                clamped=("discharge 96 kW -> 90 kW: the PCS's limit at this state of charge",),
                failures=self.failures,
            ),
            nodes=nodes,
            reporting=frozenset(nodes) - silent,
            it_watts=None if silent else self.it_watts,
            now_s=now_s,
            wall_s=wall_s,
            overrides=self.overrides,
        )

    # The face that the web app asks

    def status(self) -> Any:
        return status_json(self.picture())

    def plan(self) -> Any:
        return {}

    def jobs(self) -> Any:
        return jobs_json(self.picture().view)

    def ess(self) -> Any:
        return {}

    def events(self) -> Any:
        return events_json(self.picture().view)

    def healthy(self) -> bool:
        return True

    def exchange(self, sealed: bytes) -> bytes:
        return sealed

    def _view(self, wall_s: float) -> ControllerView:
        failures = {"node gpu0003": "its agent does not report: what it draws is unknown"} if self.nodes > 8 else {}
        return ControllerView(
            ticks=71,
            ticked_at_s=self._wall_s() - 12.0,
            snapshot=Snapshot(wall_s, wall_s, failures=failures),
            plan=self._plan(),
            jobs=_jobs(self._start_s),
            events=tuple(self.decided),
            forecast=self._forecast(),
        )

    def _plan(self) -> DispatchPlan:
        slots = tuple(self._slot(self._start_s + i * SLOT_S, i) for i in range(SLOTS))
        return DispatchPlan(self._start_s - 12.0, slots[0].limit_watts or 0.0, slots, 210.0 * self.nodes, margin=0.5)

    def _slot(self, start_s: float, i: int) -> PlanSlot:
        building, wanted = self.building_watts(start_s), self.it_watts * (1 + 0.13 * math.sin(i / 11))
        limit = self.peak_watts if i < 60 else 0.97 * self.peak_watts
        for_it = (0.98 * limit - building) / PUE
        shed = max(0.0, wanted - for_it - 2000.0 * self.nodes / PUE)
        load = building + PUE * (wanted - shed)
        discharge = min(3e3 * self.nodes, max(0.0, load - 0.98 * limit))
        charge = 1.2e3 * self.nodes if 44 < i < 60 else 0.0
        stored = 3.6e8 * self.nodes * (0.64 - 0.3 * min(1.0, i / 30) + 0.5 * min(1.0, max(0, i - 44) / 16))
        return PlanSlot(
            start_s, SLOT_S, load - discharge + charge, charge, discharge, stored, building, wanted, shed,
            min(for_it + discharge / PUE, 1.25 * self.it_watts), 0.09, 0.0, limit,
        )  # fmt: skip

    def _forecast(self) -> LoadForecast:
        spread = {0.1: -0.06, 0.5: 0.0, 0.9: 0.06, 0.95: 0.08}

        def series(values: list[float], model: str) -> SeriesForecast:
            bands = {q: [v * (1 + spread[q] * (0.3 + i / SLOTS)) for i, v in enumerate(values)] for q in QUANTILES}
            return SeriesForecast(self._start_s, SLOT_S, bands, model)

        starts = [self._start_s + i * SLOT_S for i in range(SLOTS)]
        it = [self.it_watts * (1 + 0.13 * math.sin(i / 11)) for i in range(SLOTS)]
        return LoadForecast(
            series([self.building_watts(s) for s in starts], "yesterday + today's bias"), series(it, "jobs")
        )

    def _node(self, i: int, now_s: float) -> NodeReading:
        gpus = tuple(self._gpu(i, g) for g in range(self.gpus))
        return NodeReading(f"gpu{i + 1:04d}", 1700.0, gpus, now_s - (0.4 + (i % 5) * 0.3 if i != 2 else 95.0))

    def _gpu(self, i: int, g: int) -> GpuReading:
        uuid = f"GPU-{i:04d}{g}b1c-7d2e-4f60-9a3b-5c6d7e8f{g:04d}"
        if (i, g) == (5, 3):
            return GpuReading(uuid, None, None, None, None, None, None, "found", None, error="GPU is lost")
        source = ("found", "lease", "lease", "user", "found", "safe", "found")[(i * 7 + g // 4) % 7]
        cap = {"found": 700.0, "lease": 480.0, "user": 560.0, "safe": 400.0}[source]
        busy = (i * 13 + g // 4) % 6 != 0
        wave = 0.5 + 0.5 * math.sin(i * 1.7 + g * 0.6)
        draw = min(cap, 380.0 + 320.0 * wave) if busy else 78.0 + 6 * wave
        celsius = 33.0 + draw / 700.0 * 42.0 + 4 * wave
        return GpuReading(uuid, draw, 1e6, 1500, celsius, 0.9 * busy, cap, source, 4000 + i // 2 if busy else None)

    def _fill_trail(self) -> None:
        past_s = SLOT_S * SLOTS / 2
        for step in range(721):
            wall_s = self._start_s - past_s + step * past_s / 720
            if 300 < step < 312:
                continue  # the controller was away
            it = self.it_watts * (1 + 0.1 * math.sin((step - 720) / 70) + 0.012 * math.sin(step * 1.9))
            discharge = max(0.0, 1.6e3 * self.nodes * math.sin((step - 469) / 96)) if step > 469 else 0.0
            charge = 0.4e3 * self.nodes if 60 < step < 260 else 0.0
            self.trail.add(
                wall_s,
                {
                    "grid_import_watts": self.building_watts(wall_s) + PUE * it - discharge + charge,
                    "target_watts": self.peak_watts,
                    "it_watts": it,
                    "charge_watts": charge,
                    "discharge_watts": discharge,
                    "stored_fraction": 0.35 + 0.5 * min(1.0, max(0.0, step - 60) / 200) - max(0.0, (step - 469) / 1195),
                },
            )

    def _past_bill(self) -> BillingState:
        wall_s = TARIFF.billing_period_start(self._start_s) + 20 * 3600.0
        billing = BillingState(journal=FakeJournal(), rates=TARIFF, max_gap_s=1200.0, wall_s=wall_s)
        while wall_s < self._start_s:
            billing.observe(GridReading(0.93 * self.peak_watts, 0.0, wall_s), wall_s=wall_s)
            wall_s += 900.0
        return billing


def _events(start_s: float) -> list[Event]:
    return [
        Event(start_s - 5400, "create", "reservation slurm_power_3", "until 16:30 the envelope is 38 kW lower"),
        Event(start_s - 2400, "cap", "job 4002", "480 W per GPU: 21.3 kW less are needed; 4 % slower"),
        Event(start_s - 1800, "defer", "job 4105", "starting now would lift the peak by 12.4 kW"),
        Event(start_s - 700, "requeue", "job 4019", "preemptible; 18.0 kW short", "Access/permission denied"),
        Event(start_s - 60, "cap", "job 4004", "500 W per GPU: the envelope of this slot"),
    ]  # fmt: skip


def _jobs(start_s: float) -> tuple[Job, ...]:
    names = ["llama-70b-sft", "diffusion-sweep", "protein-fold", "cfd-ensemble", "whisper-eval", HOSTILE]
    jobs = [
        _job(4000 + i, JobState.RUNNING, "None", names[i % 6], ("anna", "bo", "chandra")[i % 3], start_s,
             capped={2: 480.0, 4: 500.0}.get(i)) for i in range(9)
    ]  # fmt: skip
    reasons = ("Licenses", "Priority", "Resources")
    jobs += [_job(4100 + i, JobState.PENDING, reasons[i % 3], names[i % 5], "dmitri", start_s) for i in range(5)]
    return (*jobs, _job(4105, JobState.PENDING, "BeginTime", "hpl-burn-in", "eve", start_s, deferred=start_s + 16_200))


def _job(
    job_id: int, state: JobState, reason: str, name: str, user: str, start_s: float,
    capped: float | None = None, deferred: float | None = None,
) -> Job:  # fmt: skip
    mark = JobMark(PowerRequest(power_class=PowerClass.FLEXIBLE), deferred_until_wall_s=deferred, capped_watts=capped)
    return Job(
        job_id=job_id, user_name=user, uid=1000, name=name, partition="main", state=state, state_reason=reason, gpus=16,
        node_names=(), submit_wall_s=start_s - 9000, begin_wall_s=None, start_wall_s=None, time_limit_s=86_400.0,
        licenses={"watts": 14_600}, batch=True, requeueable=True, admin_comment=with_mark("", mark),
    )  # fmt: skip
