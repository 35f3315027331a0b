"""Where PDUs keep their input power in SNMP, and in what unit. Pure: object identifiers out, watts from the answer.

APC: rPDU2 (PowerNet-MIB). Raritan: PX2 and later (PDU2-MIB); its agents disagree about the scale, so it is read, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from slurm_power.errors import Unavailable

Answer = Mapping[str, object]
"""Value by object identifier; what the device does not have is absent."""


class Pdu(Protocol):
    @property
    def oids(self) -> Sequence[str]:
        """All that one reading needs."""
        ...

    def watts(self, answer: Answer) -> float:
        """Raise Unavailable, saying which object is missing or makes no sense."""
        ...


@dataclass(frozen=True, slots=True)
class ApcRpdu2:
    pdu: int
    inlet: int = 1  # it has one

    @property
    def oids(self) -> Sequence[str]:
        return (f"1.3.6.1.4.1.318.1.1.26.4.3.1.5.{self.pdu}",)

    def watts(self, answer: Answer) -> float:
        """rPDU2DeviceStatusPower is in hundredths of kW; -1 when it is not available."""
        return 10.0 * _integer(answer, self.oids[0], "rPDU2DeviceStatusPower")


@dataclass(frozen=True, slots=True)
class RaritanPx2:
    pdu: int
    inlet: int

    @property
    def oids(self) -> Sequence[str]:
        index = f"{self.pdu}.{self.inlet}.{_ACTIVE_POWER}"
        return tuple(f"1.3.6.1.4.1.13742.6.{column}.{index}" for column in _RARITAN_COLUMNS)

    def watts(self, answer: Answer) -> float:
        named = zip(self.oids, _RARITAN_COLUMNS.values(), strict=True)
        available, value, unit, digits = (_integer(answer, oid, name) for oid, name in named)
        if available != _TRUE:
            raise Unavailable("says that its inlet's active power is not available")
        if unit != _WATT:
            raise Unavailable(f"gives its inlet's active power in unit {unit}, not in watts ({_WATT})")
        if not 0 <= digits <= _MOST_DIGITS:
            raise Unavailable(f"inletSensorDecimalDigits = {digits} makes no sense")
        return value / float(10**digits)


PDUS: Mapping[str, Callable[[int, int], Pdu]] = {"apc_rpdu2": ApcRpdu2, "raritan_px2": RaritanPx2}

_RARITAN_COLUMNS = {
    "5.2.3.1.2": "measurementsInletSensorIsAvailable",
    "5.2.3.1.4": "measurementsInletSensorValue",
    "3.3.4.1.6": "inletSensorUnits",
    "3.3.4.1.7": "inletSensorDecimalDigits",
}
_ACTIVE_POWER = 5  # SensorTypeEnumeration
_WATT = 3  # SensorUnitsEnumeration
_TRUE = 1  # TruthValue
_MOST_DIGITS = 6


def _integer(answer: Answer, oid: str, name: str) -> int:
    value = answer.get(oid)
    if value is None:
        raise Unavailable(f"no such object: {name} ({oid})")
    if not isinstance(value, int):
        raise Unavailable(f"{name} ({oid}) is no whole number but {value!r}")
    return value
