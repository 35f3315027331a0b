"""The testing side of the NVML emulator: make nodes, register loads, cause faults, read the physics.

Emulated only. What is modelled, and what is not: emulator.h beside this file.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from slurm_power.errors import ConfigError, DeviceError, DeviceGone, DeviceRefused, NotPermitted, Unavailable
from slurm_power.testing.nvml_emulator.library import Reading, build_library, load_library
from slurm_power.testing.nvml_emulator.node_power import OFF_WATTS, is_off

__all__ = ["ENVIRONMENT", "EmulatedNode", "Fault", "build_library"]

ENVIRONMENT = "SLURM_POWER_EMULATED_NODE"
"""Names the state file whose GPUs a process sees; %n in it becomes $SLURMD_NODENAME."""

Fault = Literal["none", "lost", "unknown-error", "overheat", "clock-jitter", "starved"]
_FAULTS: tuple[Fault, ...] = ("none", "lost", "unknown-error", "overheat", "clock-jitter", "starved")

_INVALID_ARGUMENT, _NO_PERMISSION, _NOT_FOUND, _DRIVER_NOT_LOADED = 2, 4, 6, 9
_TIMEOUT, _GPU_IS_LOST, _OPERATING_SYSTEM, _VERSION_MISMATCH, _NO_RESOURCES = 10, 15, 17, 18, 23


class EmulatedNode:
    """One node's GPUs. Readings tell physical truth: a lost GPU simply draws nothing."""

    def __init__(self, handle: ctypes.c_void_p, state_file: Path) -> None:
        self._library = load_library()
        self._handle: ctypes.c_void_p | None = handle
        self.state_file = state_file
        count = self._library.emu_gpu_count(handle)
        self._indices = {self._read_index(i).uuid.decode(): i for i in range(count)}

    @classmethod
    def create(
        cls,
        state_file: Path,
        *,
        gpu_count: int = 4,
        base_watts: float = 500.0,
        uuid_seed: str = "",
    ) -> Self:
        """Make a new node, in place of one that may be there; open processes keep the old one.

        UUIDs follow from seed and minor number; without a seed from the folder's name and minor.
        """
        seed = (uuid_seed or state_file.resolve().parent.name).encode()
        state_file.parent.mkdir(parents=True, exist_ok=True)
        path = str(state_file).encode()
        _check(load_library().emu_create(path, gpu_count, base_watts, seed), str(state_file))
        return cls.open(state_file)

    @classmethod
    def open(cls, state_file: Path) -> Self:
        """Raise Unavailable if the file is missing or not of this version."""
        handle = ctypes.c_void_p()
        _check(load_library().emu_open(str(state_file).encode(), ctypes.byref(handle)), str(state_file))
        return cls(handle, state_file)

    @classmethod
    def open_from_environment(cls) -> Self:
        """The node that NVML calls of this process would see."""
        path = ctypes.create_string_buffer(4096)
        _check(load_library().emu_state_path(path, len(path)), f"${ENVIRONMENT}")
        return cls.open(Path(path.value.decode()))

    def close(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            self._library.emu_close(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # ---- who is there

    def gpu_uuids(self) -> list[str]:
        """In NVML order, which is not the order of minor numbers."""
        return list(self._indices)

    def uuid_of_minor(self, minor: int) -> str:
        for uuid in self._indices:
            if self._read(uuid).minor == minor:
                return uuid
        raise DeviceGone(f"{self.state_file}: no emulated GPU with minor number {minor}")

    # ---- what they do

    def base_watts(self) -> float:
        return float(self._library.emu_base_watts(self._open_handle()))

    def draw_watts(self) -> float:
        """The whole node now: base and GPUs; what is left when it is switched off."""
        if is_off(self.state_file):
            return OFF_WATTS
        return self.base_watts() + sum(self.gpu_draw_watts(uuid) for uuid in self._indices)

    def gpu_draw_watts(self, uuid: str) -> float:
        return self._read(uuid).draw_watts

    def gpu_energy_joules(self, uuid: str) -> float:
        return self._read(uuid).energy_joules

    def gpu_cap_watts(self, uuid: str) -> float:
        return self._read(uuid).limit_watts

    def gpu_default_cap_watts(self, uuid: str) -> float:
        return self._read(uuid).default_limit_watts

    def gpu_clock_mhz(self, uuid: str) -> int:
        return self._read(uuid).clock_mhz

    def locked_clock_mhz(self, uuid: str) -> int | None:
        """Upper side of the clock lock; None without one."""
        return self._read(uuid).lock_max_mhz or None

    def gpu_temperature_celsius(self, uuid: str) -> float:
        return self._read(uuid).temperature_celsius

    def gpu_utilisation_fraction(self, uuid: str) -> float:
        return self._read(uuid).utilisation_fraction

    def gpu_throttle_reasons(self, uuid: str) -> int:
        """NVML's nvmlClocksEventReason bits."""
        return self._read(uuid).reasons

    def power_violation_s(self, uuid: str) -> float:
        return self._read(uuid).power_violation_s

    def thermal_violation_s(self, uuid: str) -> float:
        return self._read(uuid).thermal_violation_s

    def fault(self, uuid: str) -> Fault:
        return _FAULTS[self._read(uuid).fault]

    # ---- jobs

    def open_load(self, uuid: str, *, pid: int, utilisation_fraction: float) -> None:
        """Let process `pid` use the GPU. Again for the same process: change how much, keep its work.

        Raises DeviceGone if the GPU is lost, DeviceRefused if it has no room for one more load.
        """
        self._call("emu_open_load", uuid, pid, utilisation_fraction)

    def close_load(self, uuid: str, *, pid: int) -> None:
        """No error if there is none."""
        self._call("emu_close_load", uuid, pid)

    def work_done(self, uuid: str, *, pid: int) -> float:
        """Full-speed seconds of work done. DeviceGone once the load or its GPU is gone."""
        work_s = ctypes.c_double()
        self._call("emu_work_done", uuid, pid, ctypes.byref(work_s))
        return work_s.value

    # ---- test directors

    def set_fault(self, uuid: str, fault: Fault) -> None:
        if fault not in _FAULTS:
            raise ConfigError(f"fault = {fault}: must be one of {', '.join(_FAULTS)}")
        self._call("emu_set_fault", uuid, _FAULTS.index(fault))

    def set_found_cap(self, uuid: str, watts: float) -> None:
        """Set the power limit as another administrator would, whoever we are."""
        self._call("emu_set_limit", uuid, watts)

    def set_default_cap(self, uuid: str, watts: float) -> None:
        """Set the board's default limit; the present limit stays."""
        self._call("emu_set_default_limit", uuid, watts)

    def restore_as_delivered(self) -> None:
        """No fault, and the default limit, on every GPU."""
        for uuid in self._indices:
            self.set_fault(uuid, "none")
            self.set_found_cap(uuid, self.gpu_default_cap_watts(uuid))

    def set_mig(self, uuid: str, enabled: bool) -> None:
        self._call("emu_set_mig", uuid, int(enabled))

    def pass_time(self, seconds: float) -> None:
        """Let the node's clock jump, so that tests need not wait."""
        _check(self._library.emu_pass_time(self._open_handle(), seconds), f"{seconds} s")

    def hold_lock(self) -> None:
        """Take the node's lock and keep it: only to test that a killed holder blocks nobody."""
        _check(self._library.emu_hold_lock(self._open_handle()), str(self.state_file))

    def _open_handle(self) -> ctypes.c_void_p:
        if self._handle is None:
            raise Unavailable(f"{self.state_file}: this emulated node was closed")
        return self._handle

    def _index(self, uuid: str) -> int:
        try:
            return self._indices[uuid]
        except KeyError:
            raise DeviceGone(f"{self.state_file}: no emulated GPU {uuid}") from None

    def _call(self, name: str, uuid: str, *arguments: object) -> None:
        function = getattr(self._library, name)
        _check(function(self._open_handle(), self._index(uuid), *arguments), uuid)

    def _read(self, uuid: str) -> Reading:
        return self._read_index(self._index(uuid))

    def _read_index(self, index: int) -> Reading:
        reading = Reading()
        result = self._library.emu_read(self._open_handle(), index, ctypes.byref(reading))
        _check(result, f"GPU {index} of {self.state_file}")
        return reading


_ERRORS: dict[int, tuple[type[Exception], str]] = {
    _INVALID_ARGUMENT: (ConfigError, "a value is outside what the emulated board allows"),
    _NO_PERMISSION: (NotPermitted, "this user may not open the state file"),
    _NOT_FOUND: (DeviceGone, "no such load, or its process is dead"),
    _DRIVER_NOT_LOADED: (Unavailable, "no emulated node there"),
    _TIMEOUT: (Unavailable, "another process holds the emulated node's lock"),
    _GPU_IS_LOST: (DeviceGone, "the emulated GPU is lost"),
    _OPERATING_SYSTEM: (Unavailable, "the state file cannot be read or written"),
    _VERSION_MISMATCH: (Unavailable, "the state file is of another version of the emulator"),
    _NO_RESOURCES: (DeviceRefused, "no room for one more load"),
}


def _check(result: int, what: str) -> None:
    if result == 0:
        return
    kind, words = _ERRORS.get(result, (DeviceError, f"NVML error {result}"))
    raise kind(f"{what}: {words}")
