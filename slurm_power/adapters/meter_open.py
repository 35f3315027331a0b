"""The meters that the [meter] and [parts] tables ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, assert_never

from slurm_power.adapters.meter_redfish import RedfishMeter, RedfishMeterConfig
from slurm_power.adapters.meter_snmp import SnmpMeter, SnmpMeterConfig
from slurm_power.adapters.meter_sum import MOST_PARTS, MeterGroup
from slurm_power.adapters.meter_sunspec import SunSpecMeter, SunSpecMeterConfig
from slurm_power.errors import ConfigError, require
from slurm_power.monitoring.conservation import ConservationRules
from slurm_power.ports.clock import Clock
from slurm_power.ports.meter import Meter

MeterConfig = SunSpecMeterConfig | SnmpMeterConfig | RedfishMeterConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class PartsMeterConfig:
    """The `[meter]` table of kind "parts": no meter stands at the feeder, the sum of `[parts]` does."""

    NEEDS_TABLE: ClassVar[str] = "parts"

    kind: Literal["parts"] = "parts"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartsConfig:
    """The `[parts]` table: meters below the feeder, none below another."""

    meters: Mapping[str, MeterConfig]
    """By name; each as `[meter]` would describe it."""

    conservation: ConservationRules = ConservationRules()
    """How their sum is held against the feeder's meter, where there is one."""

    def __post_init__(self) -> None:
        names = ", ".join(self.meters)
        require(1 <= len(self.meters) <= MOST_PARTS, "meters", names, f"must be 1 to {MOST_PARTS} meters")


def open_meter(config: MeterConfig, *, clock: Clock, name: str = "meter") -> Meter:
    """Nothing is asked before the first reading. Raise ConfigError for a file of a secret that will not do."""
    try:
        match config:
            case SunSpecMeterConfig():
                return SunSpecMeter(config, clock=clock, name=name)
            case SnmpMeterConfig():
                return SnmpMeter(config, clock=clock, name=name)
            case RedfishMeterConfig():
                return RedfishMeter(config, clock=clock, name=name)
            case _:
                assert_never(config)
    except ConfigError as cause:
        raise ConfigError(f"{name}: {cause}") from cause


def open_parts(config: PartsConfig, *, clock: Clock) -> MeterGroup:
    return MeterGroup({name: open_meter(one, clock=clock, name=name) for name, one in config.meters.items()})
