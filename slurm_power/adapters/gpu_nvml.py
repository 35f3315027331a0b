"""NVIDIA GPUs through NVML (nvidia-ml-py). Named by UUID everywhere; an NVML index never leaves this file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from slurm_power.errors import DeviceError, DeviceGone, DeviceRefused, Unavailable
from slurm_power.ports.gpu import Gpu, GpuIdentity, GpuLimits, GpuSample
from slurm_power.units import (
    fraction_from_percent,
    joules_from_millijoules,
    milliwatts_from_watts,
    watts_from_milliwatts,
)

log = logging.getLogger(__name__)

CAP_TOLERANCE_WATTS = 1.0
"""A board may round a limit; more than this is a limit that was not taken."""

_UNINITIALIZED, _INVALID_ARGUMENT, _NOT_SUPPORTED, _NO_PERMISSION, _NOT_FOUND = 1, 2, 3, 4, 6
_DRIVER_NOT_LOADED, _LIBRARY_NOT_FOUND, _FUNCTION_NOT_FOUND = 9, 12, 13
_GPU_IS_LOST, _LIB_RM_VERSION_MISMATCH, _GPU_NOT_FOUND = 15, 18, 28

_ABSENT = (_NOT_SUPPORTED, _FUNCTION_NOT_FOUND)
_GONE = (_GPU_IS_LOST, _NOT_FOUND, _GPU_NOT_FOUND)
_WHOLE_LIBRARY = (_UNINITIALIZED, _DRIVER_NOT_LOADED, _LIB_RM_VERSION_MISMATCH)

_NANOSECONDS_PER_S = 1e9

T = TypeVar("T")


class NvmlGpu:
    """One GPU. Identity and limits are read once, counters at each sample."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        """Raise DeviceError if the board does not tell who it is or what limits it takes."""
        self._nvml = nvml
        self._handle = handle
        self._absent: set[str] = set()
        self._uuid = "GPU (no UUID yet)"
        with self._translated("identity"):
            self._uuid = nvml.nvmlDeviceGetUUID(handle)
            self._identity = self._read_identity()
        with self._translated("limits"):
            self._limits = self._read_limits()

    @property
    def identity(self) -> GpuIdentity:
        return self._identity

    @property
    def limits(self) -> GpuLimits:
        return self._limits

    def sample(self) -> GpuSample:
        nvml = self._nvml
        cap_mw = self._enforced_milliwatts()
        utilisation = self._told("nvmlDeviceGetUtilizationRates")
        energy_mj = self._told("nvmlDeviceGetTotalEnergyConsumption")
        draw_mw = self._told("nvmlDeviceGetPowerUsage")
        return GpuSample(
            draw_watts=_maybe(watts_from_milliwatts, draw_mw),
            energy_joules=_maybe(joules_from_millijoules, energy_mj),
            sm_clock_mhz=self._told("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM),
            memory_clock_mhz=self._told("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_MEM),
            temperature_celsius=_maybe(float, self._temperature()),
            utilisation_fraction=_maybe(lambda rates: fraction_from_percent(rates.gpu), utilisation),
            enforced_cap_watts=_maybe(watts_from_milliwatts, cap_mw),
            throttle_reasons=self._first_told(
                ("nvmlDeviceGetCurrentClocksEventReasons",),
                ("nvmlDeviceGetCurrentClocksThrottleReasons",),  # drivers before 535
            ),
            power_violation_s=self._violation_s(nvml.NVML_PERF_POLICY_POWER),
            thermal_violation_s=self._violation_s(nvml.NVML_PERF_POLICY_THERMAL),
            thermal_margin_celsius=_maybe(float, self._if_told("nvmlDeviceGetMarginTemperature")),
        )

    def enforced_cap_watts(self) -> float:
        milliwatts = self._enforced_milliwatts()
        if milliwatts is None:
            raise DeviceRefused(f"{self._uuid}: this board does not tell its power limit")
        return watts_from_milliwatts(milliwatts)

    def set_cap_watts(self, watts: float) -> None:
        low, high = self._limits.min_cap_watts, self._limits.max_cap_watts
        if not low <= watts <= high:
            raise DeviceRefused(f"{self._uuid}: cap {watts:g} W is outside [{low:g}, {high:g}] W")
        with self._translated(f"cap {watts:g} W"):
            self._nvml.nvmlDeviceSetPowerManagementLimit(self._handle, milliwatts_from_watts(watts))
        enforced_watts = self.enforced_cap_watts()
        if abs(enforced_watts - watts) > CAP_TOLERANCE_WATTS:
            raise DeviceRefused(f"{self._uuid}: cap {watts:g} W was set, but {enforced_watts:g} W is enforced")

    def lock_clock_mhz(self, max_mhz: int) -> None:
        low, high = self._limits.min_sm_clock_mhz, self._limits.max_sm_clock_mhz
        if not low <= max_mhz <= high:
            raise DeviceRefused(f"{self._uuid}: clock {max_mhz} MHz is outside [{low}, {high}] MHz")
        with self._translated(f"clock {max_mhz} MHz"):
            self._nvml.nvmlDeviceSetGpuLockedClocks(self._handle, low, max_mhz)

    def unlock_clock(self) -> None:
        with self._translated("clock unlock"):
            try:
                self._nvml.nvmlDeviceResetGpuLockedClocks(self._handle)
            except self._nvml.NVMLError as error:
                if error.value not in _ABSENT:  # a board that cannot lock holds no lock
                    raise

    def _read_identity(self) -> GpuIdentity:
        nvml, handle = self._nvml, self._handle
        mig = self._told("nvmlDeviceGetMigMode")
        return GpuIdentity(
            uuid=self._uuid,
            pci_bus_id=_text(nvml.nvmlDeviceGetPciInfo(handle).busId),
            minor_number=nvml.nvmlDeviceGetMinorNumber(handle),
            name=_text(nvml.nvmlDeviceGetName(handle)),
            mig_enabled=mig is not None and mig[0] == nvml.NVML_DEVICE_MIG_ENABLE,
        )

    def _read_limits(self) -> GpuLimits:
        nvml, handle = self._nvml, self._handle
        low_mw, high_mw = nvml.nvmlDeviceGetPowerManagementLimitConstraints(handle)
        low_mhz, high_mhz = self._sm_clock_range()
        return GpuLimits(
            min_cap_watts=watts_from_milliwatts(low_mw),
            max_cap_watts=watts_from_milliwatts(high_mw),
            default_cap_watts=watts_from_milliwatts(nvml.nvmlDeviceGetPowerManagementDefaultLimit(handle)),
            min_sm_clock_mhz=low_mhz,
            max_sm_clock_mhz=high_mhz,
            slowdown_celsius=_maybe(
                float, self._if_told("nvmlDeviceGetTemperatureThreshold", nvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN)
            ),
        )

    def _sm_clock_range(self) -> tuple[int, int]:
        """A board that does not list its clocks gets an empty range: no lock below its maximum is asked of it."""
        highest = self._nvml.nvmlDeviceGetMaxClockInfo(self._handle, self._nvml.NVML_CLOCK_SM)
        memory = self._told("nvmlDeviceGetSupportedMemoryClocks")
        clocks = memory and self._told("nvmlDeviceGetSupportedGraphicsClocks", max(memory))
        return (min(clocks), max(clocks)) if clocks else (highest, highest)

    def _enforced_milliwatts(self) -> int | None:
        answer: int | None = self._first_told(
            ("nvmlDeviceGetEnforcedPowerLimit",), ("nvmlDeviceGetPowerManagementLimit",)
        )
        return answer

    def _temperature(self) -> int | None:
        sensor = self._nvml.NVML_TEMPERATURE_GPU
        answer: int | None = self._first_told(
            ("nvmlDeviceGetTemperatureV", sensor),
            ("nvmlDeviceGetTemperature", sensor),  # drivers without the versioned call
        )
        return answer

    def _violation_s(self, policy: int) -> float | None:
        status = self._told("nvmlDeviceGetViolationStatus", policy)
        return None if status is None else status.violationTime / _NANOSECONDS_PER_S

    def _first_told(self, *calls: tuple[Any, ...]) -> Any:
        """The answer of the first of these calls (name and arguments) that this driver has."""
        for name, *arguments in calls:
            if (answer := self._told(name, *arguments)) is not None:
                return answer
        return None

    def _told(self, name: str, *arguments: Any) -> Any:
        """A getter's answer; None where board or driver have none. They are asked for it only once."""
        key = f"{name}{arguments}"
        if key in self._absent:
            return None
        with self._translated(name):
            try:
                return getattr(self._nvml, name)(self._handle, *arguments)
            except AttributeError:  # an older nvidia-ml-py
                self._absent.add(key)
            except self._nvml.NVMLError as error:
                if error.value not in _ABSENT:
                    raise
                self._absent.add(key)
        return None

    def _if_told(self, name: str, *arguments: Any) -> Any:
        """`_told` for young getters that some drivers refuse in their own ways: no reason to lose the whole sample."""
        try:
            return self._told(name, *arguments)
        except DeviceGone:
            raise
        except DeviceError:
            self._absent.add(f"{name}{arguments}")
            return None

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._nvml.NVMLError as error:
            raise _translate(error, f"{self._uuid}: {what}") from error


class NvmlInventory:
    """The GPUs of this node as NVML lists them now. Without an NVIDIA library there are none."""

    def __init__(self, nvml: Any = None) -> None:
        """`nvml`: the pynvml module; imported at first use when not given."""
        self._nvml = nvml
        self._started = False
        self._logged: set[str] = set()
        self._known: dict[str, NvmlGpu] = {}

    def gpus(self) -> list[Gpu]:
        """A GPU that does not answer is left out, with a line in the log; the others stay.

        Raises Unavailable if the library is there but does not start (driver missing or of
        another version).
        """
        if not self._start():
            return []
        try:
            count = self._nvml.nvmlDeviceGetCount()
        except self._nvml.NVMLError as error:
            raise Unavailable(f"NVML: {error}") from error
        found = [gpu for index in range(count) if (gpu := self._gpu_at(index)) is not None]
        self._known = {gpu.identity.uuid: gpu for gpu in found}
        return list(found)

    def close(self) -> None:
        if self._started:
            self._nvml.nvmlShutdown()
            self._started = False
            self._known = {}

    def _start(self) -> bool:
        if self._started:
            return True
        if self._nvml is None and not self._import():
            return False
        try:
            self._nvml.nvmlInit()
        except self._nvml.NVMLError as error:
            if error.value != _LIBRARY_NOT_FOUND:
                raise Unavailable(f"NVML does not start: {error}") from error
            return self._no_library("libnvidia-ml.so.1 is not installed")
        self._started = True
        return True

    def _import(self) -> bool:
        try:
            import pynvml
        except ImportError:
            return self._no_library("nvidia-ml-py is not installed")
        self._nvml = pynvml
        return True

    def _no_library(self, reason: str) -> bool:
        self._log_once(f"no NVIDIA GPU on this node: {reason}")
        return False

    def _log_once(self, line: str) -> None:
        """gpus() may be asked every second; the log need not hear it every second."""
        if line not in self._logged:
            self._logged.add(line)
            log.warning("%s", line)

    def _gpu_at(self, index: int) -> NvmlGpu | None:
        try:
            handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
            known = self._known.get(self._nvml.nvmlDeviceGetUUID(handle))
            return known or NvmlGpu(self._nvml, handle)
        except self._nvml.NVMLError as error:
            self._log_once(f"NVML's GPU {index} left out: {error}")
        except DeviceError as error:
            self._log_once(f"left out: {error}")
        return None


def _translate(error: Any, what: str) -> DeviceError | Unavailable:
    if error.value in _GONE:
        return DeviceGone(f"{what}: {error}")
    if error.value in (_NO_PERMISSION, _INVALID_ARGUMENT, *_ABSENT):
        return DeviceRefused(f"{what}: {error}")
    if error.value in _WHOLE_LIBRARY:
        return Unavailable(f"{what}: {error}")
    return DeviceError(f"{what}: {error}")


def _maybe(convert: Callable[[Any], T], value: Any) -> T | None:
    return None if value is None else convert(value)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
