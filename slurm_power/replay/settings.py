"""The cluster that exists only in memory, and how its Slurm behaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from slurm_power.errors import require
from slurm_power.relocation.jobs import PowerClass
from slurm_power.relocation.settings import RelocationConfig
from slurm_power.replay.curves import Curve


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayConfig:
    node_gpus: tuple[int, ...]
    """GPUs of each node."""

    gpu_max_watts: float
    """Highest cap of a board; a job's licence counts this for each of its GPUs."""

    gpu_idle_watts: float
    min_gpu_cap_watts: float
    node_base_watts: float
    """A node without its GPUs. A job carries the share of it that its GPUs are of the node's."""

    default_curve: Curve
    curves: Mapping[str, Curve] = field(default_factory=dict)
    """By workload."""

    slot_s: float = 900.0
    """Power is averaged, budgets are given and the policy is asked once a slot."""

    backfill_interval_s: float = 30.0
    """As Slurm's bf_interval (its default); 0: after every event."""

    backfill_depth: int = 500
    """As Slurm's bf_max_job_test (its default): so many waiting jobs are looked at in one pass."""

    checkpoint_interval_s: float | None = 3600.0
    """Work between two checkpoints, in seconds at full speed. None: a requeued job starts from nothing."""

    requeue_delay_s: float = 121.0
    """A requeued job may not start before: Slurm waits until its old credential has expired."""

    class_priority: Mapping[PowerClass, int] = field(default_factory=dict)
    """Higher starts first; among equals, who was submitted first."""

    stall_s: float = 14 * 86_400.0
    """Give up when nobody has run for so long and everybody has arrived."""

    def __post_init__(self) -> None:
        require(
            bool(self.node_gpus) and min(self.node_gpus) > 0, "node_gpus", self.node_gpus[:3], "needs GPUs on each node"
        )
        require(
            0 <= self.gpu_idle_watts <= self.min_gpu_cap_watts <= self.gpu_max_watts,
            "gpu_idle_watts, min_gpu_cap_watts, gpu_max_watts",
            (self.gpu_idle_watts, self.min_gpu_cap_watts, self.gpu_max_watts),
            "must rise",
        )
        for key in ("node_base_watts", "backfill_interval_s", "requeue_delay_s"):
            require(getattr(self, key) >= 0, key, getattr(self, key), "must not be below 0")
        for key in ("slot_s", "backfill_depth", "stall_s"):
            require(getattr(self, key) > 0, key, getattr(self, key), "must be above 0")
        if self.checkpoint_interval_s is not None:
            require(self.checkpoint_interval_s > 0, "checkpoint_interval_s", self.checkpoint_interval_s, "or None")
        for name, curve in {"the default curve": self.default_curve, **self.curves}.items():
            least = curve.throughput_fraction(self.min_gpu_cap_watts)
            require(bool(least > 0), "min_gpu_cap_watts", self.min_gpu_cap_watts, f"{name} stands still there")

    @property
    def gpus(self) -> int:
        return sum(self.node_gpus)


def even_nodes(nodes: int, gpus_per_node: int) -> tuple[int, ...]:
    return (gpus_per_node,) * nodes


def replay_config(relocation: RelocationConfig, node_gpus: tuple[int, ...], default_curve: Curve) -> ReplayConfig:
    """The same watts as the planner's."""
    return ReplayConfig(
        node_gpus=node_gpus,
        gpu_max_watts=relocation.gpu_max_watts,
        gpu_idle_watts=min(relocation.gpu_idle_watts, relocation.min_gpu_cap_watts),
        min_gpu_cap_watts=relocation.min_gpu_cap_watts,
        node_base_watts=relocation.node_base_watts,
        default_curve=default_curve,
    )
