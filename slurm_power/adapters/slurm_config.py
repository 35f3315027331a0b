"""Table [slurm]: how the controller talks to Slurm."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from slurm_power.errors import require


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmConfig:
    adapter: str = "command"
    """"command" runs squeue and scontrol and works with any Slurm from 22.05 on; "pyslurm" needs the pyslurm
    that matches the running Slurm."""

    slurm_conf: Path | None = None
    """None: Slurm's own default."""

    partition: str = "main"
    """Licence reservations must name one partition, though they hold no nodes."""

    timeout_s: float = 10.0
    """A slurmctld that takes longer counts as unreachable for this tick."""

    def __post_init__(self) -> None:
        require(self.adapter in ("command", "pyslurm"), "adapter", self.adapter, 'must be "command" or "pyslurm"')
        require(self.timeout_s > 0, "timeout_s", self.timeout_s, "must be above 0")
        require(bool(self.partition), "partition", self.partition, "must name a partition")
