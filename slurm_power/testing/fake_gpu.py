"""GPUs in pure Python for unit tests: a fake draws what it wants, up to its cap."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from slurm_power.errors import DeviceError, DeviceGone, DeviceRefused
from slurm_power.ports.gpu import Gpu, GpuIdentity, GpuLimits, GpuSample

FakeFault = Literal["none", "lost", "unknown-error", "no-permission"]
"""no-permission: everything can be read, nothing set."""

H100_LIMITS = GpuLimits(
    min_cap_watts=200.0,
    max_cap_watts=700.0,
    default_cap_watts=700.0,
    min_sm_clock_mhz=345,
    max_sm_clock_mhz=1980,
    slowdown_celsius=90.0,
)

SW_POWER_CAP = 0x4  # nvmlClocksEventReasonSwPowerCap


@dataclass(slots=True)
class FakeGpu:
    """All fields may be set by a test at any time."""

    uuid: str = "GPU-fake-0"
    minor_number: int = 0
    mig_enabled: bool = False
    fault: FakeFault = "none"
    wants_watts: float = 70.0
    cap_watts: float = 700.0
    """As found; another administrator may have left it below the default."""
    locked_clock_mhz: int | None = None
    energy_joules: float = 0.0
    temperature_celsius: float = 40.0
    limits_found: GpuLimits = H100_LIMITS
    calls: list[str] = field(default_factory=list)
    """Every write that was carried out, in order."""

    @property
    def identity(self) -> GpuIdentity:
        return GpuIdentity(
            uuid=self.uuid,
            pci_bus_id=f"00000000:{0x1B + self.minor_number:02X}:00.0",
            minor_number=self.minor_number,
            name="Fake GPU",
            mig_enabled=self.mig_enabled,
        )

    @property
    def limits(self) -> GpuLimits:
        return self.limits_found

    def sample(self) -> GpuSample:
        self._answer()
        held_back = self.wants_watts > self.cap_watts
        return GpuSample(
            draw_watts=min(self.wants_watts, self.cap_watts),
            energy_joules=self.energy_joules,
            sm_clock_mhz=self.locked_clock_mhz or self.limits.max_sm_clock_mhz,
            memory_clock_mhz=2619,
            temperature_celsius=self.temperature_celsius,
            utilisation_fraction=min(1.0, self.wants_watts / self.limits.max_cap_watts),
            enforced_cap_watts=self.cap_watts,
            throttle_reasons=SW_POWER_CAP if held_back else 0,
            power_violation_s=0.0,
            thermal_violation_s=0.0,
            thermal_margin_celsius=87.0 - self.temperature_celsius,
        )

    def enforced_cap_watts(self) -> float:
        self._answer()
        return self.cap_watts

    def set_cap_watts(self, watts: float) -> None:
        low, high = self.limits.min_cap_watts, self.limits.max_cap_watts
        self._allow(f"cap {watts:g} W", low <= watts <= high, f"[{low:g}, {high:g}] W")
        self.cap_watts = watts
        self.calls.append(f"cap {watts:g}")

    def lock_clock_mhz(self, max_mhz: int) -> None:
        low, high = self.limits.min_sm_clock_mhz, self.limits.max_sm_clock_mhz
        self._allow(f"clock {max_mhz} MHz", low <= max_mhz <= high, f"[{low}, {high}] MHz")
        self.locked_clock_mhz = max_mhz
        self.calls.append(f"lock {max_mhz}")

    def unlock_clock(self) -> None:
        self._allow("clock unlock", True, "")
        self.locked_clock_mhz = None
        self.calls.append("unlock")

    def _answer(self) -> None:
        if self.fault == "lost":
            raise DeviceGone(f"{self.uuid}: GPU is lost")
        if self.fault == "unknown-error":
            raise DeviceError(f"{self.uuid}: Unknown Error")

    def _allow(self, what: str, in_range: bool, allowed: str) -> None:
        self._answer()
        if not in_range:
            raise DeviceRefused(f"{self.uuid}: {what} is outside {allowed}")
        if self.fault == "no-permission":
            raise DeviceRefused(f"{self.uuid}: {what} refused: Insufficient Permissions")


@dataclass(slots=True)
class FakeInventory:
    fakes: list[FakeGpu] = field(default_factory=list)

    def gpus(self) -> list[Gpu]:
        return list(self.fakes)
