"""Which rank this process is, and where rank 0 is to be found. Pure: reads an environment, asks nobody."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from job_wrappers.training.hostlist import expand
from training.errors import ConfigError

LOCAL_VARIABLE = "SLURM_POWER_LOCAL_RANK"
"""Set by `--local-ranks` for each rank it starts: a RankPlace as JSON."""

PORT_TRIES = 16
_FIRST_PORT, _PORTS = 20000, 10000
"""Below the ports that Linux gives to outgoing connections (net.ipv4.ip_local_port_range)."""

_REPEAT = re.compile(r"([0-9]+)(?:\(x([0-9]+)\))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class RankPlace:
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_size: int = 1
    """Ranks on this node."""

    node_name: str = "localhost"
    nodes: tuple[str, ...] = ("localhost",)
    master_addresses: tuple[str, ...] = ("127.0.0.1",)
    """Where rank 0 may be, the best guess first."""

    key: str = "alone"
    """Tells this start from every other: whoever answers with another key is not ours."""

    cpus: int | None = None
    """CPUs of this rank; None: not said."""

    @property
    def ports(self) -> tuple[int, ...]:
        """Where rank 0 listens: the first of these that is free. Every rank finds the same list."""
        first = zlib.crc32(self.key.encode()) % _PORTS
        return tuple(_FIRST_PORT + (first + step) % _PORTS for step in range(PORT_TRIES))


def place_from(environ: Mapping[str, str]) -> RankPlace:
    """Raise ConfigError for an environment that contradicts itself."""
    if LOCAL_VARIABLE in environ:
        return _local(environ[LOCAL_VARIABLE])
    if environ.get("SLURM_STEP_ID", "").isdigit():
        return place_from_slurm(environ)
    tasks = environ.get("SLURM_NTASKS", "1")
    if tasks != "1":
        raise ConfigError(f"SLURM_NTASKS = {tasks}: a batch script is one process; start the ranks with srun")
    return RankPlace()


def place_from_slurm(environ: Mapping[str, str]) -> RankPlace:
    """A task of a job step: srun(1), "OUTPUT ENVIRONMENT VARIABLES"."""
    nodes = tuple(expand(environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST", "")))
    node_index = _number(environ, "SLURM_NODEID")
    rank, world_size = _number(environ, "SLURM_PROCID"), _number(environ, "SLURM_NTASKS")
    if rank >= world_size or node_index >= len(nodes):
        raise ConfigError(f"SLURM_PROCID = {rank}: not a task of {world_size} on {len(nodes)} nodes")
    return RankPlace(
        rank=rank,
        world_size=world_size,
        local_rank=_number(environ, "SLURM_LOCALID"),
        local_size=_tasks_per_node(environ)[node_index],
        node_name=environ.get("SLURMD_NODENAME") or nodes[node_index],
        nodes=nodes,
        master_addresses=_addresses(nodes[0], environ.get("SLURM_LAUNCH_NODE_IPADDR", ""), alone=len(nodes) == 1),
        key="-".join(
            environ.get(name, "0")
            for name in ("SLURM_CLUSTER_NAME", "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
        ),
        cpus=int(environ["SLURM_CPUS_PER_TASK"]) if environ.get("SLURM_CPUS_PER_TASK", "").isdigit() else None,
    )


def local_places(count: int, *, key: str, cpus: int) -> list[RankPlace]:
    """`count` ranks on this machine, without Slurm."""
    return [
        RankPlace(
            rank=rank, world_size=count, local_rank=rank, local_size=count, key=key, cpus=max(1, cpus // max(1, count))
        )
        for rank in range(count)
    ]


def to_variable(place: RankPlace) -> str:
    return json.dumps(asdict(place))


def restart_count(environ: Mapping[str, str]) -> int:
    """How often Slurm has started this job again; 0 outside Slurm."""
    text = environ.get("SLURM_RESTART_COUNT", "0")
    return int(text) if text.isdigit() else 0


def _addresses(first_node: str, launch_address: str, *, alone: bool) -> tuple[str, ...]:
    """srun's own node is a batch script's node, the first of the job; only a guess when srun ran on a login node."""
    if alone:
        return ("127.0.0.1",)
    return (first_node, launch_address) if launch_address else (first_node,)


def _tasks_per_node(environ: Mapping[str, str]) -> list[int]:
    """`2(x3),1` -> 2 2 2 1."""
    text = environ.get("SLURM_STEP_TASKS_PER_NODE") or environ.get("SLURM_TASKS_PER_NODE", "")
    found = [_REPEAT.fullmatch(part) for part in text.split(",")]
    if not all(found):
        raise ConfigError(f"SLURM_STEP_TASKS_PER_NODE = {text[:80] or '(not set)'}: not understood")
    counts: list[int] = []
    for match in found:
        if match is not None:
            counts += [int(match.group(1))] * int(match.group(2) or 1)
    return counts


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "")
    if not text.isdigit():
        raise ConfigError(f"{name} = {text[:40] or '(not set)'}: must be a number; is this a task started by srun?")
    return int(text)


def _local(text: str) -> RankPlace:
    try:
        values = json.loads(text)
        values["nodes"], values["master_addresses"] = tuple(values["nodes"]), tuple(values["master_addresses"])
        return RankPlace(**values)
    except (ValueError, KeyError, TypeError) as cause:
        raise ConfigError(f"{LOCAL_VARIABLE} = {text[:80]}: not written by --local-ranks") from cause
