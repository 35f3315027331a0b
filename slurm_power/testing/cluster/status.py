"""What runs in a development cluster, as a person or a script wants to know it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from slurm_power.errors import DeviceRefused, Unavailable
from slurm_power.testing.cluster.commands import SlurmCommands
from slurm_power.testing.processes import Supervisor


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    directory: str
    slurm_conf: str
    daemons: Mapping[str, int | None]
    """Pid of everything that was started; None: it has ended or crashed."""

    nodes: Mapping[str, str] | None = None  # Slurm's word for each; None: slurmctld does not answer
    jobs: Mapping[str, int] | None = field(default=None)

    @property
    def running(self) -> bool:
        """True when every daemon that was started still runs."""
        return bool(self.daemons) and all(pid is not None for pid in self.daemons.values())

    def as_json(self) -> dict[str, object]:
        return {**asdict(self), "running": self.running}


def read_status(directory: str, commands: SlurmCommands, supervisor: Supervisor) -> ClusterStatus:
    daemons = {name: supervisor.running_pid(name) for name in supervisor.names()}
    status = ClusterStatus(directory, str(commands.layout.slurm_conf), daemons)
    if daemons.get("slurmctld") is None:
        return status
    try:
        nodes, jobs = commands.node_states(), Counter(commands.job_states().values())
    except (DeviceRefused, Unavailable):  # slurmctld may be gone since we looked
        return status
    return ClusterStatus(directory, status.slurm_conf, daemons, nodes, dict(jobs))
