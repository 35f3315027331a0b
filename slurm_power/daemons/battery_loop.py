"""The fast loop: read meter and PCS, keep the open metering interval's account, follow it with the battery.

It needs a target and a plan slot from the slow tick, and nothing else from it: while the tick is late or
dead, the last target is defended on.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from slurm_power.daemons.billing_state import BillingState
from slurm_power.daemons.controller_view import FastView
from slurm_power.errors import SlurmPowerError
from slurm_power.ess.battery import BatteryLimits
from slurm_power.ess.fast_dispatch import next_setpoint
from slurm_power.ess.guard import Following, Guarded, GuardState, SiteLimits, guard_setpoint
from slurm_power.ess.plan import DispatchPlan
from slurm_power.ess.setpoint import EssSetpoint
from slurm_power.monitoring.readings import EssReading, GridReading
from slurm_power.ports.clock import Clock
from slurm_power.ports.ess import Ess
from slurm_power.ports.meter import Meter

log = logging.getLogger(__name__)

T = TypeVar("T")


class BatteryLoop:
    def __init__(
        self,
        *,
        clock: Clock,
        meter: Meter,
        ess: Ess,
        billing: BillingState,
        site: SiteLimits,
        battery: BatteryLimits,
        revert_s: float,
        manage: bool,
    ) -> None:
        self._clock, self._meter, self._ess = clock, meter, ess
        self._billing, self._site, self._battery = billing, site, battery
        self._revert_s, self._manage = revert_s, manage
        self._guard_state: GuardState = Following()
        self._grid: GridReading | None = None
        self._battery_reading: EssReading | None = None
        self._plan: DispatchPlan | None = None
        self._lock = threading.Lock()
        self._view = FastView()

    def follow(self, plan: DispatchPlan) -> None:
        with self._lock:
            self._plan = plan

    def let(self, *, manage: bool) -> None:
        """False: nothing more is sent; the last setpoint ends by its revert time."""
        with self._lock:
            self._manage = manage

    def view(self) -> FastView:
        with self._lock:
            return self._view

    def step(self) -> None:
        failures: dict[str, str] = {}
        measured = self._observe(failures)
        self._billing.observe(measured, wall_s=self._clock.wall_s())
        guarded = self._decide()
        if guarded is not None:
            self._command(guarded.setpoint, failures)
        self._publish(guarded, failures)

    def _observe(self, failures: dict[str, str]) -> GridReading | None:
        """The meter's answer of this step, if any. A device that is silent leaves its last reading in place,
        and that reading ages."""
        measured = self._ask("meter", self._meter.read, failures)
        self._grid = measured or self._grid
        self._battery_reading = self._ask("pcs", self._ess.read, failures) or self._battery_reading
        return measured

    def _decide(self) -> Guarded | None:
        """None: nothing may be sent (observing only, or no plan was ever made)."""
        with self._lock:
            plan, manage = self._plan, self._manage
        if plan is None or not manage:
            return None
        now_s, wall_s = self._clock.now_s(), self._clock.wall_s()
        slot = plan.slot_at(wall_s)
        defended = defended_watts(
            plan.limit_watts_at(wall_s),
            free_watts=self._billing.free_watts(wall_s),
            promised=slot is not None and slot.promised,
        )
        target_watts = min(self._site.grid_limit_watts, defended)
        wanted = EssSetpoint()
        if self._grid is not None and self._battery_reading is not None:
            wanted = next_setpoint(
                slot,
                target_watts=target_watts,
                interval=self._billing.interval(wall_s),
                grid=self._grid,
                ess=self._battery_reading,
                battery=self._battery,
                wall_s=wall_s,
                command_s=self._site.command_s,
            ).setpoint
        guarded = guard_setpoint(
            wanted,
            state=self._guard_state,
            grid=self._grid,
            ess=self._battery_reading,
            target_watts=target_watts,
            limits=self._site,
            battery=self._battery,
            now_s=now_s,
        )
        self._guard_state = guarded.state
        return guarded

    def _command(self, setpoint: EssSetpoint, failures: dict[str, str]) -> None:
        try:
            self._ess.command(setpoint, revert_s=self._revert_s)
        except SlurmPowerError as failure:
            failures["pcs command"] = str(failure)

    def _publish(self, guarded: Guarded | None, failures: dict[str, str]) -> None:
        wall_s = self._clock.wall_s()
        interval = self._billing.interval(wall_s)
        view = FastView(
            grid=self._grid,
            ess=self._battery_reading,
            setpoint=None if guarded is None else guarded.setpoint,
            clamped=() if guarded is None else guarded.clamped,
            interval_average_watts=interval.average_watts,
            interval_remaining_s=interval.remaining_s(wall_s),
            peak_watts=self._billing.peak_watts(wall_s),
            failures=failures,
        )
        with self._lock:
            _log_changes(self._view, view)
            self._view = view

    @staticmethod
    def _ask(name: str, read: Callable[[], T], failures: dict[str, str]) -> T | None:
        try:
            return read()
        except SlurmPowerError as failure:
            failures[name] = str(failure)
            return None


def defended_watts(limit_watts: float, *, free_watts: float, promised: bool) -> float:
    """The plan's limit, but never below what is already paid for, unless less was promised to somebody."""
    return limit_watts if promised else max(limit_watts, free_watts)


def _log_changes(before: FastView, now: FastView) -> None:
    """One line when a trouble begins, one when it ends: not one per step."""
    for device in now.failures.keys() - before.failures.keys():
        log.warning("%s: %s", device, now.failures[device])
    for device in before.failures.keys() - now.failures.keys():
        log.warning("%s: answers again", device)
    for note in set(now.clamped) - set(before.clamped):
        log.info("guard: %s", note)
