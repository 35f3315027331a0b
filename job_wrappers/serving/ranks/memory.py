"""How much memory this process may use, and how much a piece of work used at its peak."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from job_wrappers.serving.kernels.allocator import give_back_freed_memory

_CGROUP_ROOT = Path("/sys/fs/cgroup")


def free_bytes(device: torch.device) -> int:
    """On the device. On a CPU: of this process's share, where several ranks run on one node; inside Slurm's limit."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_host_bytes() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def free_host_bytes(root: Path = _CGROUP_ROOT, own: Path = Path("/proc/self/cgroup")) -> int:
    """What the machine has to give, or what is left of the tightest memory limit of a control group above us."""
    left = [int(psutil.virtual_memory().available)]
    with suppress(OSError, ValueError):
        line = next(line for line in own.read_text().splitlines() if line.startswith("0::"))
        group = root / line.removeprefix("0::").lstrip("/")
        for each in (group, *group.parents):
            with suppress(OSError, ValueError):  # no limit reads "max"
                left.append(int((each / "memory.max").read_text()) - int((each / "memory.current").read_text()))
            if each == root:
                break
    return max(0, min(left))


@dataclass(slots=True)
class Peak:
    used_bytes: int | None = None
    """Above what was in use before; None: this kernel does not let us ask."""


@contextmanager
def peak_bytes(device: torch.device) -> Iterator[Peak]:
    """Of the work inside."""
    peak = Peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield peak
        peak.used_bytes = torch.cuda.max_memory_allocated(device) - before
        return
    give_back_freed_memory()
    can_reset = _reset_high_water()
    before = psutil.Process().memory_info().rss
    yield peak
    if can_reset:
        peak.used_bytes = max(0, _high_water_bytes() - before)


def _reset_high_water() -> bool:
    """proc_pid_clear_refs(5): 5 sets the high-water mark to the present size."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _high_water_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
