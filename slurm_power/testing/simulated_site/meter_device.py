"""A three-phase meter as SunSpec models 1 and 203.

Model 203 does not fix the sign of W, and meters differ. Here it is settable; positive import is the default.
"""

from __future__ import annotations

from slurm_power.testing.simulated_site.sunspec_map import IllegalAddress, SunSpecMap, finest_scale
from slurm_power.units import kwh_from_joules

COMMON, METER = 1, 203
LARGEST_RAW = 32_000


class MeterDevice:
    def __init__(self, *, serial: str, largest_watts: float, import_is_positive: bool = True) -> None:
        self.map = SunSpecMap((COMMON, METER))
        self._sign = 1.0 if import_is_positive else -1.0
        self._imported_joules = 0.0
        self._exported_joules = 0.0
        self.map.set(COMMON, {"Mn": "slurm-power", "Md": "simulated meter", "Vr": "1", "SN": serial, "DA": 1})
        self.map.set_scale(METER, "W_SF", finest_scale(largest_watts, limit=LARGEST_RAW, finest=-1))
        self.map.set_scale(METER, "TotWh_SF", 0)
        self.map.set(METER, {"Evt": 0})
        self.measure(0.0, 0.0)

    def measure(self, net_import_watts: float, duration_s: float) -> None:
        """What flowed during the last `duration_s`; below zero is export."""
        self._imported_joules += max(0.0, net_import_watts) * duration_s
        self._exported_joules += max(0.0, -net_import_watts) * duration_s
        self._widen(abs(net_import_watts))
        self.map.set(
            METER,
            {
                "W": self._sign * net_import_watts,
                "TotWhImp": 1000.0 * kwh_from_joules(self._imported_joules),
                "TotWhExp": 1000.0 * kwh_from_joules(self._exported_joules),
            },
        )

    def _widen(self, watts: float) -> None:
        """A 16-bit W that no longer fits gets a coarser scale factor, as real meters do at run time."""
        if self.map.implements(METER, "W_SF"):
            needed = finest_scale(watts, limit=LARGEST_RAW)
            if needed > self.map.scale(METER, "W_SF"):
                self.map.set_scale(METER, "W_SF", needed)

    def write(self, address: int, values: list[int]) -> None:
        raise IllegalAddress("a meter takes no commands")
