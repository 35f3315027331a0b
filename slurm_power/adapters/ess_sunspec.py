"""Battery and PCS over SunSpec Modbus TCP: models 701, 702, 704 and 713, and 715 where the device has it.

SunSpec signs power (701 W and 704 WSet: positive is generation, so discharging); the signs end in this file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from slurm_power.adapters.sunspec_link import SunSpecLink, SunSpecModel
from slurm_power.errors import DeviceRefused, Unavailable, require
from slurm_power.ess.setpoint import EssSetpoint
from slurm_power.monitoring.readings import EssReading
from slurm_power.ports.clock import Clock
from slurm_power.units import fraction_from_percent, joules_from_kwh, percent_from_fraction

MEASURE, CAPACITY, CONTROL, STORAGE, DER = 701, 702, 704, 713, 715
LOCAL = 1  # 715 LocRemCtl
INVERTER_FAULT = 6  # 701 InvSt
STORAGE_STATES = {1: "STORAGE_WARNING", 2: "STORAGE_ERROR"}  # 713 Sta
MODE_PERCENT, MODE_WATTS = 0, 1  # 704 WSetMod
ENABLED = 1  # 704 WSetEna
HEARTBEAT_END = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class SunSpecEssConfig:
    """The `[pcs]` table."""

    host: str
    port: int = 502
    unit_id: int = 1
    timeout_s: float = 2.0
    """Longest time one reading or one command may take, connection included."""

    revert_s: float
    """Handed to the PCS with every command: it drops to zero by itself when no other command came for so long."""

    def __post_init__(self) -> None:
        require(bool(self.host), "host", self.host, "must name the PCS")
        require(1 <= self.port <= 65_535, "port", self.port, "must be in 1..65535")
        require(1 <= self.unit_id <= 247, "unit_id", self.unit_id, "Modbus units are 1..247")
        require(self.timeout_s > 0, "timeout_s", self.timeout_s, "must be above 0")
        require(self.revert_s >= 1, "revert_s", self.revert_s, "SunSpec counts whole seconds: at least 1")
        require(self.revert_s > self.timeout_s, "revert_s", self.revert_s, "must be longer than timeout_s")


class SunSpecEss:
    def __init__(self, config: SunSpecEssConfig, *, clock: Clock) -> None:
        self._clock = clock
        self._link = SunSpecLink(
            name="PCS", host=config.host, port=config.port, unit_id=config.unit_id, timeout_s=config.timeout_s
        )
        self._heartbeat = 0

    def read(self) -> EssReading:
        taken_at_s = self._clock.now_s()  # before asking: a reading is never younger than it says
        models = self._link.operate(self._read_all)
        return _reading(models, taken_at_s=taken_at_s, device=self._link.name)

    def command(self, setpoint: EssSetpoint, *, revert_s: float) -> None:
        require(revert_s >= 1, "revert_s", revert_s, "SunSpec counts whole seconds: at least 1")
        self._link.operate(lambda: self._command(setpoint, revert_s))

    def close(self) -> None:
        self._link.close()

    def _read_all(self) -> dict[int, SunSpecModel]:
        wanted = {MEASURE, CAPACITY, STORAGE, *({DER} & self._link.models())}
        return {model_id: self._link.read_model(model_id) for model_id in sorted(wanted)}

    def _command(self, setpoint: EssSetpoint, revert_s: float) -> None:
        der = self._link.read_model(DER) if DER in self._link.models() else None
        if der is not None and der.number("LocRemCtl") == LOCAL:
            raise DeviceRefused(f"{self._link.name}: is in local mode")
        capacity = self._link.read_model(CAPACITY)
        _refuse_outside_ratings(setpoint, capacity, device=self._link.name)
        control = self._link.read_model(CONTROL)
        changes = _setpoint_points(setpoint, control, capacity, revert_s=revert_s, device=self._link.name)
        if control.number("WSetEna") == ENABLED:
            self._link.write(*control.registers_between("WSetEna", "WSetRvrtTms", {**changes, "WSetEna": ENABLED}))
        else:
            # Enabled last, so that a device that works through a write point by point never runs an old setpoint.
            self._link.write(*control.registers_between("WSetMod", "WSetRvrtTms", changes))
            self._link.write(*control.registers_between("WSetEna", "WSetEna", {"WSetEna": ENABLED}))
        self._beat(der)

    def _beat(self, der: SunSpecModel | None) -> None:
        """Some devices stop when the controller's heartbeat stands still."""
        if der is not None and der.has("ControllerHb"):
            self._heartbeat = (self._heartbeat + 1) % HEARTBEAT_END
            self._link.write(*der.registers_between("ControllerHb", "ControllerHb", {"ControllerHb": self._heartbeat}))


def _reading(models: dict[int, SunSpecModel], *, taken_at_s: float, device: str) -> EssReading:
    measure, storage = models[MEASURE], models[STORAGE]
    generation_watts = _needed(measure, "W", device)
    health_percent = storage.number("SoH")
    rated_joules = joules_from_kwh(_needed(storage, "WHRtg", device) / 1000.0)
    health_fraction = None if health_percent is None else fraction_from_percent(health_percent)
    der = models.get(DER)
    return EssReading(
        stored_fraction=fraction_from_percent(_needed(storage, "SoC", device)),
        health_fraction=health_fraction,
        # 713: WHAvail = WHRtg x SoC x SoH, so what a full battery holds is the rating times its health.
        capacity_joules=rated_joules * (1.0 if health_fraction is None else health_fraction),
        max_charge_watts=_charge_limit_watts(models[CAPACITY], device),
        max_discharge_watts=_discharge_limit_watts(models[CAPACITY], device),
        charge_watts=max(0.0, -generation_watts),
        discharge_watts=max(0.0, generation_watts),
        remote_allowed=der is None or der.number("LocRemCtl") != LOCAL,
        alarms=_alarms(measure, storage),
        taken_at_s=taken_at_s,
        available_joules=_optional_joules(storage, "WHAvail"),
    )


def _optional_joules(model: SunSpecModel, name: str) -> float | None:
    watt_hours = model.number(name)
    return None if watt_hours is None else joules_from_kwh(watt_hours / 1000.0)


def _alarms(measure: SunSpecModel, storage: SunSpecModel) -> tuple[str, ...]:
    alarms = measure.set_bits("Alrm")
    if measure.number("InvSt") == INVERTER_FAULT:
        alarms += ("INVERTER_FAULT",)
    state = storage.number("Sta")
    if state in STORAGE_STATES:
        alarms += (STORAGE_STATES[int(state)],)
    return alarms


def _charge_limit_watts(capacity: SunSpecModel, device: str) -> float:
    return _first(capacity, ("WChaRteMax", "WChaRteMaxRtg"), device)


def _discharge_limit_watts(capacity: SunSpecModel, device: str) -> float:
    return _first(capacity, ("WDisChaRteMax", "WDisChaRteMaxRtg", "WMax", "WMaxRtg"), device)


def _refuse_outside_ratings(setpoint: EssSetpoint, capacity: SunSpecModel, *, device: str) -> None:
    step_watts = capacity.scale_factor("WMaxRtg") or 1.0  # the ratings are rounded to whole steps
    for asked_watts, limit_watts, what in (
        (setpoint.charge_watts, _charge_limit_watts(capacity, device), "charge"),
        (setpoint.discharge_watts, _discharge_limit_watts(capacity, device), "discharge"),
    ):
        if asked_watts > limit_watts + step_watts:
            raise DeviceRefused(f"{device}: {what} {asked_watts:.0f} W is above its {limit_watts:.0f} W")


def _setpoint_points(
    setpoint: EssSetpoint, control: SunSpecModel, capacity: SunSpecModel, *, revert_s: float, device: str
) -> dict[str, float]:
    """Every point of one command, in watts where the device takes watts, else in percent of its maximum.
    After the timer the function stays enabled at zero: disabled would leave the PCS to its own programme."""
    generation_watts = setpoint.discharge_watts - setpoint.charge_watts
    points: dict[str, float] = {"WSetEnaRvrt": ENABLED, "WSetRvrtTms": math.ceil(revert_s)}
    if control.has("WSet"):
        points |= {"WSetMod": MODE_WATTS, "WSet": generation_watts, "WSetRvrt": 0.0}
        if control.has("WSetPctRvrt"):
            points["WSetPctRvrt"] = 0.0
        return points
    if control.has("WSetPct"):
        share = generation_watts / _first(capacity, ("WMax", "WMaxRtg"), device)
        return points | {"WSetMod": MODE_PERCENT, "WSetPct": percent_from_fraction(share), "WSetPctRvrt": 0.0}
    raise DeviceRefused(f"{device}: takes active power neither in watts nor in percent (704 WSet, WSetPct)")


def _needed(model: SunSpecModel, name: str, device: str) -> float:
    return _first(model, (name,), device)


def _first(model: SunSpecModel, names: tuple[str, ...], device: str) -> float:
    for name in names:
        value = model.number(name)
        if value is not None:
            return value
    raise Unavailable(f"{device}: does not implement {' or '.join(names)}")
