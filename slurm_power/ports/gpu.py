"""One GPU, named by UUID. All methods raise DeviceGone once it has fallen off the bus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class GpuIdentity:
    uuid: str
    pci_bus_id: str
    minor_number: int  # N of /dev/nvidiaN; not the NVML index
    name: str
    mig_enabled: bool


@dataclass(frozen=True, slots=True)
class GpuLimits:
    min_cap_watts: float
    max_cap_watts: float
    default_cap_watts: float
    min_sm_clock_mhz: int
    max_sm_clock_mhz: int
    slowdown_celsius: float | None = None  # where the hardware halves its clock; None: not told


@dataclass(frozen=True, slots=True)
class GpuSample:
    """One read of all counters. None: this board or driver does not tell."""

    draw_watts: float | None
    energy_joules: float | None  # since driver load
    sm_clock_mhz: int | None
    memory_clock_mhz: int | None
    temperature_celsius: float | None
    utilisation_fraction: float | None
    enforced_cap_watts: float | None
    throttle_reasons: int | None  # NVML's nvmlClocksEventReasons bit mask
    power_violation_s: float | None  # total time held back by the power cap
    thermal_violation_s: float | None
    thermal_margin_celsius: float | None = None  # to the temperature at which the board slows itself down (T.Limit)


class Gpu(Protocol):
    @property
    def identity(self) -> GpuIdentity: ...

    @property
    def limits(self) -> GpuLimits: ...

    def sample(self) -> GpuSample: ...

    def enforced_cap_watts(self) -> float: ...

    def set_cap_watts(self, watts: float) -> None:
        """Raise DeviceRefused if `watts` is outside the board's range or we lack the right.
        Returns only after the enforced limit was read back and matches."""
        ...

    def lock_clock_mhz(self, max_mhz: int) -> None:
        """Hold the SM clock at or below `max_mhz`. Raise DeviceRefused as `set_cap_watts` does."""
        ...

    def unlock_clock(self) -> None:
        """Drop a clock lock; no error if there is none."""
        ...


class GpuInventory(Protocol):
    """The GPUs of this node. No GPU is an empty list, never an error."""

    def gpus(self) -> list[Gpu]: ...
