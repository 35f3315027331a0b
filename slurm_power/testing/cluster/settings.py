"""What a development cluster is asked to be."""

from __future__ import annotations

from dataclasses import dataclass

from slurm_power.errors import require

GPU_MAX_WATTS = 700
GPU_MIN_WATTS = 200
GPU_MAX_CLOCK_MHZ = 1980
GPU_MIN_CLOCK_MHZ = 345
"""Range of the emulated board (H100 SXM); the SPANK plugin is told the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    node_count: int = 4
    gpus_per_node: int = 4
    cpus_per_node: int = 32
    """More than the machine has is fine: Slurm is told to believe it."""

    node_base_watts: int = 500
    """Draw of an emulated node without its GPUs."""

    licensed_watts: int | None = None
    """Size of the `watts` pool and of the `firm_watts` pool; None: what all nodes can draw together."""

    def __post_init__(self) -> None:
        require(1 <= self.node_count <= 64, "node_count", self.node_count, "must be 1 to 64")
        require(0 <= self.gpus_per_node <= 16, "gpus_per_node", self.gpus_per_node, "must be 0 to 16")
        require(self.cpus_per_node >= 1, "cpus_per_node", self.cpus_per_node, "must be at least 1")
        require(self.node_base_watts >= 0, "node_base_watts", self.node_base_watts, "must not be negative")

    def node_names(self) -> list[str]:
        return [f"n{number}" for number in range(1, self.node_count + 1)]

    def pool_watts(self) -> int:
        if self.licensed_watts is not None:
            return self.licensed_watts
        return self.node_count * (self.node_base_watts + self.gpus_per_node * GPU_MAX_WATTS)
