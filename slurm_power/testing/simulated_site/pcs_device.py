"""Unit 1 on the bus: PCS and battery as SunSpec models 1, 701, 702, 704, 713 and 715."""

from __future__ import annotations

from collections.abc import Mapping

from slurm_power.testing.simulated_site.pcs import Operation, Pcs, SetpointMode
from slurm_power.testing.simulated_site.sunspec_map import (
    IllegalAddress,
    IllegalValue,
    PointName,
    SunSpecMap,
    bit_of,
    finest_scale,
)
from slurm_power.units import kwh_from_joules

COMMON, MEASURE, CAPACITY, CONTROL, STORAGE, DER = 1, 701, 702, 704, 713, 715
INVERTER_OFF, INVERTER_RUNNING, INVERTER_FAULT, INVERTER_STANDBY = 0, 3, 6, 7
ALLOWED_IN_LOCAL = {(DER, "ControllerHb")}


class PcsDevice:
    def __init__(self, pcs: Pcs) -> None:
        self.pcs = pcs
        self.map = SunSpecMap((COMMON, MEASURE, CAPACITY, CONTROL, STORAGE, DER))
        self.heartbeat = 0  # the controller's, as last written
        self._fill_constants()
        self.refresh()

    def refresh(self) -> None:
        """Bring every register up to date with the PCS."""
        self._fill_measurements()
        self._fill_capacity()
        self._fill_control()
        self._fill_storage()

    def write(self, address: int, values: list[int]) -> None:
        """Take one write request as a whole or not at all.
        Raise IllegalAddress (read-only, not implemented) or IllegalValue (outside ratings, local mode)."""
        changes = self.map.decode_write(address, values)
        self._check(changes)
        self._apply(changes)
        self.refresh()

    def _check(self, changes: Mapping[PointName, float | None]) -> None:
        if self.pcs.local and not set(changes) <= ALLOWED_IN_LOCAL:
            raise IllegalValue("in local mode")
        for name, value in changes.items():
            if name not in TAKEN_POINTS:
                raise IllegalAddress(f"{name} is not implemented")
            if value is None and self.map.implements(*name):
                raise IllegalValue(f"{name} needs a value")
            limit = self._limits().get(name)
            if limit is not None and value is not None and not limit[0] <= value <= limit[1]:
                raise IllegalValue(f"{name} = {value}: outside {limit}")

    def _limits(self) -> dict[PointName, tuple[float, float]]:
        battery, most = self.pcs.battery.config, self.pcs.config.max_watts
        slack = 10.0 ** self.map.scale(CONTROL, "WSet_SF")  # one step: the ratings themselves are rounded
        return {
            (CONTROL, "WSet"): (-battery.max_charge_watts - slack, battery.max_discharge_watts + slack),
            (CONTROL, "WSetPct"): (
                -100.0 * battery.max_charge_watts / most - 1.0,
                100.0 * battery.max_discharge_watts / most + 1.0,
            ),
            (CONTROL, "WSetEna"): (0, 1),
            (CONTROL, "WSetEnaRvrt"): (0, 1),
            (CONTROL, "WSetMod"): (0, 1),
            (CONTROL, "WRmp"): (1, 65_534),
            (DER, "OpCtl"): (0, 3),
        }

    def _apply(self, changes: Mapping[PointName, float | None]) -> None:
        pcs = self.pcs
        touched_setpoint = False
        for (model, point), value in changes.items():
            if value is None:
                continue
            touched_setpoint |= model == CONTROL and point.startswith("WSet")
            match point:
                case "WSetEna":
                    pcs.enabled = bool(value)
                case "WSetMod":
                    pcs.mode = SetpointMode(int(value))
                case "WSet":
                    pcs.set_watts = value
                case "WSetRvrt":
                    pcs.revert_watts = value
                case "WSetPct":
                    pcs.set_percent = value
                case "WSetPctRvrt":
                    pcs.revert_percent = value
                case "WSetEnaRvrt":
                    pcs.revert_enabled = bool(value)
                case "WSetRvrtTms":
                    pcs.revert_after_s = int(value)
                case "WRmp":
                    pcs.ramp_percent_per_s = int(value)
                case "OpCtl":
                    pcs.operation = Operation(int(value))
                case "AlarmReset" if value == 1:
                    pcs.reset_alarms()
                case "ControllerHb":
                    self.heartbeat = int(value)
        if touched_setpoint:
            pcs.restart_revert_timer()

    def _fill_constants(self) -> None:
        pcs, battery = self.pcs, self.pcs.battery.config
        watts = max(pcs.config.max_watts, battery.max_charge_watts, battery.max_discharge_watts)
        self.map.set(COMMON, {"Mn": "slurm-power", "Md": "simulated PCS", "Vr": "1", "SN": "SIM-PCS-1", "DA": 1})
        for model, scale in ((MEASURE, "W_SF"), (CAPACITY, "W_SF")):
            self.map.set_scale(model, scale, finest_scale(watts, limit=32_000, finest=-1))
        self.map.set_scale(MEASURE, "TotWh_SF", 0)
        self.map.set_scale(CONTROL, "WSet_SF", 0)
        self.map.set_scale(CONTROL, "WSetPct_SF", -2)
        self.map.set_scale(STORAGE, "Pct_SF", -2)
        rated_wh = 1000.0 * kwh_from_joules(battery.rated_joules)
        self.map.set_scale(STORAGE, "WH_SF", finest_scale(rated_wh, limit=65_000))
        self._hide_other_mode()

    def _hide_other_mode(self) -> None:
        hidden = {"watts": ("WSetPct", "WSetPctRvrt"), "percent": ("WSet", "WSetRvrt"), "both": ()}
        for point in hidden[self.pcs.config.setpoint_modes]:
            self.map.unimplement(CONTROL, point)

    def _fill_measurements(self) -> None:
        pcs = self.pcs
        bits = sum(1 << bit_of(MEASURE, "Alrm", alarm) for alarm in pcs.alarms)
        injected_wh, absorbed_wh = (1000.0 * kwh_from_joules(j) for j in (pcs.discharged_joules, pcs.charged_joules))
        self.map.set(
            MEASURE,
            {
                "ACType": 2,
                "St": int(pcs.operation is not Operation.STOP),
                "InvSt": self._inverter_state(),
                "ConnSt": int(not pcs.tripped),
                "Alrm": bits,
                "DERMode": 1,
                "W": pcs.discharge_watts - pcs.charge_watts,
                "TotWhInj": injected_wh,
                "TotWhAbs": absorbed_wh,
            },
        )

    def _inverter_state(self) -> int:
        if self.pcs.tripped:
            return INVERTER_FAULT
        if self.pcs.operation is Operation.STOP:
            return INVERTER_OFF
        return INVERTER_RUNNING if self.pcs.charge_watts or self.pcs.discharge_watts else INVERTER_STANDBY

    def _fill_capacity(self) -> None:
        battery, most = self.pcs.battery.config, self.pcs.config.max_watts
        rates = {"WChaRteMax": battery.max_charge_watts, "WDisChaRteMax": battery.max_discharge_watts, "WMax": most}
        self.map.set(CAPACITY, {**rates, **{f"{name}Rtg": watts for name, watts in rates.items()}})

    def _fill_control(self) -> None:
        pcs = self.pcs
        self.map.set(
            CONTROL,
            {
                "WSetEna": int(pcs.enabled),
                "WSetMod": int(pcs.mode),
                "WSet": pcs.set_watts,
                "WSetRvrt": pcs.revert_watts,
                "WSetPct": pcs.set_percent,
                "WSetPctRvrt": pcs.revert_percent,
                "WSetEnaRvrt": int(pcs.revert_enabled),
                "WSetRvrtTms": pcs.revert_after_s,
                "WSetRvrtRem": pcs.revert_left_s or 0,
                "WRmp": pcs.ramp_percent_per_s,
                "WRmpRef": 1,
            },
        )

    def _fill_storage(self) -> None:
        pcs, battery = self.pcs, self.pcs.battery
        self.map.set(
            STORAGE,
            {
                "WHRtg": 1000.0 * kwh_from_joules(battery.config.rated_joules),
                "WHAvail": 1000.0 * kwh_from_joules(battery.stored_joules),
                "SoC": 100.0 * battery.stored_fraction,
                "SoH": 100.0 * battery.config.health_fraction,
                "Sta": 2 if pcs.tripped else int(bool(pcs.alarms)),
            },
        )
        self.map.set(
            DER,
            {
                "LocRemCtl": int(pcs.local),
                "DERHb": int(pcs.age_s) % 65_536,
                "ControllerHb": self.heartbeat,
                "AlarmReset": 0,
                "OpCtl": int(pcs.operation),
            },
        )


TAKEN_POINTS = {
    *((CONTROL, f"WSet{part}") for part in ("Ena", "Mod", "", "Rvrt", "Pct", "PctRvrt", "EnaRvrt", "RvrtTms")),
    (CONTROL, "WRmp"),
    (DER, "ControllerHb"),
    (DER, "AlarmReset"),
    (DER, "OpCtl"),
}
