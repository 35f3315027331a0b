"""Table [slurm]: how the controller talks to Slurm."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from slurm_power.errors import require

_LICENSE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmConfig:
    adapter: str = "command"
    """"command" runs squeue and scontrol and works with any Slurm from 22.05 on; "pyslurm" needs the pyslurm
    that matches the running Slurm."""

    slurm_conf: Path | None = None
    """None: Slurm's own default."""

    partition: str = "main"
    """Licence reservations must name one partition, though they hold no nodes."""

    license_name: str = "watts"
    """Licence that flexible and preemptible jobs ask for; only this one is ever reserved."""

    firm_license_name: str = "firm_watts"
    """Licence that firm jobs ask for."""

    timeout_s: float = 10.0
    """A slurmctld that takes longer counts as unreachable for this tick."""

    def __post_init__(self) -> None:
        require(self.adapter in ("command", "pyslurm"), "adapter", self.adapter, 'must be "command" or "pyslurm"')
        require(self.timeout_s > 0, "timeout_s", self.timeout_s, "must be above 0")
        require(bool(self.partition), "partition", self.partition, "must name a partition")
        for key in ("license_name", "firm_license_name"):
            name = getattr(self, key)
            require(_LICENSE_NAME.fullmatch(name) is not None, key, name, "letters, digits and _ only")
        require(
            self.license_name != self.firm_license_name,
            "firm_license_name",
            self.firm_license_name,
            "must differ from license_name, or the plan could hold firm jobs back",
        )
