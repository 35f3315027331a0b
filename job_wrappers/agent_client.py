"""A job's line to its node's agent. Small: it is loaded by every wrapped job."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from slurm_power.errors import ConfigError, NotPermitted, Unavailable

SOCKET_VARIABLE = "SLURM_POWER_AGENT_SOCKET"
DEFAULT_SOCKET = "/run/slurm-power/agent.sock"
_MAX_ANSWER_BYTES = 1024 * 1024


class AgentClient:
    def __init__(self, socket_path: str, *, timeout_s: float = 1.0) -> None:
        self._path = socket_path
        self._timeout_s = timeout_s

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> AgentClient:
        """%n in the path becomes the node's name, as in the agent's own config."""
        path = environ.get(SOCKET_VARIABLE, DEFAULT_SOCKET)
        return cls(path.replace("%n", environ.get("SLURMD_NODENAME", "")))

    def my_gpus(self, job_id: int) -> tuple[str, ...]:
        """UUIDs of the job's GPUs on this node. Raise NotPermitted for a job that is not the caller's."""
        uuids = self.ask({"op": "my_gpus", "job_id": job_id}).get("uuids")
        if not isinstance(uuids, list) or not all(isinstance(uuid, str) for uuid in uuids):
            raise Unavailable(f"{self._path}: unreadable answer")
        return tuple(uuids)

    def send_points(self, job_id: int, points: Sequence[Mapping[str, object]]) -> None:
        """Each point: measurement, wall_s, fields and tags. The agent stamps job and user."""
        self.ask({"op": "points", "job_id": job_id, "points": list(points)})

    def lower_cap(self, job_id: int, uuid: str, watts: float | None) -> None:
        """Lower the cap of one of the job's own GPUs while it runs; None withdraws the wish."""
        self.ask({"op": "set_cap", "job_id": job_id, "uuid": uuid, "watts": watts})

    def lower_clock(self, job_id: int, uuid: str, mhz: int | None) -> None:
        """The same for its SM clock."""
        self.ask({"op": "set_clock", "job_id": job_id, "uuid": uuid, "mhz": mhz})

    def ask(self, request: Mapping[str, object]) -> dict[str, Any]:
        """Raise Unavailable when no agent answers in time, NotPermitted when it says no."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(self._timeout_s)
                connection.connect(self._path)
                connection.sendall(json.dumps(request).encode() + b"\n")
                answer = json.loads(self._line(connection))
        except (OSError, ValueError) as cause:
            raise Unavailable(f"{self._path}: {cause}") from cause
        if not isinstance(answer, dict):
            raise Unavailable(f"{self._path}: unreadable answer")
        if answer.get("ok") is not True:
            raise NotPermitted(str(answer.get("error"))[:200])
        return answer

    def _line(self, connection: socket.socket) -> bytes:
        received = b""
        while not received.endswith(b"\n") and len(received) <= _MAX_ANSWER_BYTES:
            chunk = connection.recv(65536)
            if not chunk:
                raise Unavailable(f"{self._path}: the agent hung up")
            received += chunk
        return received


def job_id_of(environ: Mapping[str, str] = os.environ) -> int:
    """The Slurm job we run in. Raise ConfigError outside a job."""
    text = environ.get("SLURM_JOB_ID", "")
    if not text.isdigit():
        raise ConfigError("SLURM_JOB_ID: not set, so this is not a Slurm job")
    return int(text)
