"""Which GPUs, by UUID, a job was given. Pure.

Slurm names GPUs by its own index (gres.conf order), NVML by another; the minor number of /dev/nvidiaN joins them.
MIG and shared GPUs are refused: a cap on one would be a cap on somebody else's job.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from slurm_power.errors import DeviceRefused
from slurm_power.gpu.options import PowerOptions, shown

_UUID = re.compile(r"GPU-[0-9A-Za-z-]{1,64}", re.ASCII)
_INDEX = re.compile(r"[0-9]{1,4}", re.ASCII)


@dataclass(frozen=True, slots=True)
class NodeGpu:
    """What the mapping needs to know about one board."""

    uuid: str
    minor_number: int
    mig_enabled: bool


@dataclass(frozen=True, slots=True)
class Allocation:
    """One job's GPUs on this node and what its owner may ask of them."""

    job_id: int
    uid: int
    uuids: tuple[str, ...]
    options: PowerOptions = PowerOptions()
    lowered_watts: Mapping[str, float] = field(default_factory=dict)
    """By UUID: what the job asked for while it runs. Never lifts the cap in `options`."""

    lowered_mhz: Mapping[str, int] = field(default_factory=dict)
    """The same for the SM clock."""

    def user_cap_watts(self, uuid: str) -> float | None:
        known = [watts for watts in (self.options.gpu_cap_watts, self.lowered_watts.get(uuid)) if watts is not None]
        return min(known) if known else None

    def user_clock_mhz(self, uuid: str) -> int | None:
        known = [mhz for mhz in (self.options.gpu_clock_mhz, self.lowered_mhz.get(uuid)) if mhz is not None]
        return min(known) if known else None


def allocated_uuids(
    gpus: str, visible: str, *, node_gpus: Sequence[NodeGpu], gpu_minors: Sequence[int] = ()
) -> tuple[str, ...]:
    """UUIDs of the GPUs Slurm gave to a job, from SLURM_JOB_GPUS (indices, or UUIDs in newer versions).

    `visible` (CUDA_VISIBLE_DEVICES) only makes a list of indices exact when it names as many UUIDs. On its
    own it proves nothing: a job without GPUs may carry whatever its user exported.
    Raise DeviceRefused for MIG, and for a name or index that this node does not have.
    """
    names = [name.strip() for name in gpus.split(",") if name.strip()]
    shown_names = [name.strip() for name in visible.split(",") if name.strip()]
    if any(name.startswith("MIG") for name in (*names, *shown_names)):
        raise DeviceRefused("the job uses MIG devices; a cap would reach other jobs on the same board")
    if len(shown_names) == len(names) and all(_UUID.fullmatch(name) for name in shown_names):
        names = shown_names
    found = tuple(dict.fromkeys(_uuid_of(name, node_gpus, gpu_minors) for name in names))
    mig = [gpu.uuid for gpu in node_gpus if gpu.mig_enabled and gpu.uuid in found]
    if mig:
        raise DeviceRefused(f"{', '.join(mig)}: MIG is enabled; a cap would reach other jobs on the same board")
    return found


def _uuid_of(name: str, node_gpus: Sequence[NodeGpu], gpu_minors: Sequence[int]) -> str:
    if _UUID.fullmatch(name):
        matches = [gpu.uuid for gpu in node_gpus if gpu.uuid == name]
    elif _INDEX.fullmatch(name):
        minor = _minor_of(int(name), gpu_minors)
        matches = [gpu.uuid for gpu in node_gpus if gpu.minor_number == minor]
    else:
        raise DeviceRefused(f"GPU {shown(name)}: neither an index nor a UUID")
    if len(matches) != 1:
        raise DeviceRefused(f"GPU {shown(name)}: this node has no such GPU")
    return matches[0]


def _minor_of(index: int, gpu_minors: Sequence[int]) -> int:
    if not gpu_minors:
        return index
    if index >= len(gpu_minors):
        raise DeviceRefused(f"GPU index {index}: gpu_minors names only {len(gpu_minors)} GPUs")
    return gpu_minors[index]
