"""Energy of some GPUs from NVML's own counters (joules since driver load), read before and after a command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from slurm_power.errors import Unavailable
from slurm_power.units import joules_from_millijoules


def read_energy_joules(uuids: Sequence[str]) -> dict[str, float]:
    """By UUID. Raise Unavailable, with the reason in words, when one counter is missing: a sum with a gap is no sum."""
    try:
        import pynvml
    except ImportError as cause:
        raise Unavailable("nvidia-ml-py is not installed") from cause
    try:
        pynvml.nvmlInit()
        try:
            return {uuid: _counter_joules(pynvml, uuid) for uuid in uuids}
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as cause:
        raise Unavailable(f"NVML: {cause}") from cause


def used_joules(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """Raise Unavailable when a counter ran backwards: the driver was loaded anew in between."""
    used = [after[uuid] - before[uuid] for uuid in before]
    if any(joules < 0 for joules in used):
        raise Unavailable("an energy counter was reset while the command ran")
    return sum(used)


def _counter_joules(nvml: Any, uuid: str) -> float:
    return joules_from_millijoules(nvml.nvmlDeviceGetTotalEnergyConsumption(nvml.nvmlDeviceGetHandleByUUID(uuid)))


def keep_nvml_open() -> None:
    """For a process that reads its counters many times a second: opening NVML anew each time takes long."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except ImportError:
        return
    except pynvml.NVMLError:
        return
