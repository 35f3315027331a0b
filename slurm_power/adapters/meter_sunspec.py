"""A grid meter over SunSpec Modbus TCP: integer models 201-204 or float models 211-214.

SunSpec does not fix the sign of W and meters differ, so the site says which way is import.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from slurm_power.adapters.sunspec_link import SunSpecLink
from slurm_power.errors import Unavailable, require
from slurm_power.monitoring.readings import GridReading
from slurm_power.ports.clock import Clock

METER_MODELS = (203, 204, 202, 201, 213, 214, 212, 211)


@dataclass(frozen=True, slots=True, kw_only=True)
class SunSpecMeterConfig:
    """The `[meter]` table, or one of `[parts]`."""

    kind: Literal["sunspec"] = "sunspec"
    host: str
    port: int = 502
    unit_id: int = 2
    timeout_s: float = 2.0
    """Longest time one reading may take, connection included."""

    import_is_positive: bool
    """Sign of the meter's W. No default: only the site knows how the meter is wired."""

    def __post_init__(self) -> None:
        require(bool(self.host), "host", self.host, "must name the meter")
        require(1 <= self.port <= 65_535, "port", self.port, "must be in 1..65535")
        require(1 <= self.unit_id <= 247, "unit_id", self.unit_id, "Modbus units are 1..247")
        require(self.timeout_s > 0, "timeout_s", self.timeout_s, "must be above 0")


class SunSpecMeter:
    def __init__(self, config: SunSpecMeterConfig, *, clock: Clock, name: str = "meter") -> None:
        self._clock = clock
        self._sign = 1.0 if config.import_is_positive else -1.0
        self._link = SunSpecLink(
            name=name, host=config.host, port=config.port, unit_id=config.unit_id, timeout_s=config.timeout_s
        )

    def read(self) -> GridReading:
        taken_at_s = self._clock.now_s()  # before asking: a reading is never younger than it says
        import_watts = self._sign * self._link.operate(self._watts)
        return GridReading(
            import_watts=max(0.0, import_watts), export_watts=max(0.0, -import_watts), taken_at_s=taken_at_s
        )

    def close(self) -> None:
        self._link.close()

    def _watts(self) -> float:
        known = self._link.models()
        model_id = next((one for one in METER_MODELS if one in known), None)
        if model_id is None:
            raise Unavailable(f"{self._link.name}: has no SunSpec meter model (20x, 21x)")
        watts = self._link.read_model(model_id).number("W")
        if watts is None:
            raise Unavailable(f"{self._link.name}: does not implement W")
        return watts
