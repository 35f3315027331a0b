"""Where everything of one development cluster lies; nothing of it lies anywhere else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from slurm_power.errors import ConfigError, require

_SOCKET_PATH_MAX_BYTES = 107  # sun_path of unix(7), less the ending NUL
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9/_.+-]*")


@dataclass(frozen=True, slots=True)
class ClusterLayout:
    directory: Path

    def __post_init__(self) -> None:
        require(self.directory.is_absolute(), "directory", self.directory, "must be an absolute path")
        require(
            _PLAIN_PATH.fullmatch(str(self.directory)) is not None,
            "directory",
            self.directory,
            "slurm.conf can only hold letters, digits and / _ . + -",
        )
        length = len(str(self.agent_socket("n64")))
        require(
            length <= _SOCKET_PATH_MAX_BYTES,
            "directory",
            self.directory,
            f"too long, a Unix socket in it would have {length} of {_SOCKET_PATH_MAX_BYTES} characters",
        )

    @property
    def etc(self) -> Path:
        return self.directory / "etc"

    @property
    def slurm_conf(self) -> Path:
        return self.etc / "slurm.conf"

    @property
    def munge(self) -> Path:
        return self.directory / "munge"

    @property
    def munge_socket(self) -> Path:
        return self.munge / "munge.socket"

    @property
    def log(self) -> Path:
        return self.directory / "log"

    @property
    def run(self) -> Path:
        return self.directory / "run"

    @property
    def state(self) -> Path:
        """What slurmctld remembers."""
        return self.directory / "state"

    @property
    def spool(self) -> Path:
        return self.directory / "spool"

    @property
    def devices(self) -> Path:
        return self.directory / "dev"

    @property
    def jobs(self) -> Path:
        """Working directory of jobs, open to all users."""
        return self.directory / "jobs"

    @property
    def store(self) -> Path:
        return self.directory / "store"

    def node(self, node_name: str) -> Path:
        return self.directory / "nodes" / node_name

    def gpu_state(self, node_name: str) -> Path:
        return self.node(node_name) / "gpus.state"

    def agent_socket(self, node_name: str) -> Path:
        return self.node(node_name) / "agent.sock"

    def create(self, node_names: list[str]) -> None:
        """Make all folders; others may pass through them, only `jobs` is theirs to write in."""
        open_folders = [self.directory, self.etc, self.munge, self.log, self.run, self.spool, self.devices, self.store]
        for folder in [*open_folders, self.directory / "nodes", *map(self.node, node_names)]:
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o755)
        self.state.mkdir(exist_ok=True, mode=0o700)
        self.jobs.mkdir(exist_ok=True)
        self.jobs.chmod(0o1777)

    def closed_parent(self) -> Path | None:
        """The first parent folder through which other users cannot pass, None if all are open."""
        for parent in [*self.directory.parents][::-1]:
            if parent.exists() and not parent.stat().st_mode & 0o001:
                return parent
        return None


def product_directory() -> Path:
    """The source tree, which holds `etc/` and the C builds under `build/`."""
    root = Path(__file__).resolve().parents[3]
    if not (root / "setup.cfg").exists():
        raise ConfigError(f"{root} is not a source tree: the development cluster needs one (pip install -e .)")
    return root
