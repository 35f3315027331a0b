"""Which process of a job is which rank, and its violent end."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from slurm_power.testing.cluster import DevCluster
from tests.cluster.test_agent_on_slurm import processes_of


def is_rank(pid: int, rank: int, *, program: str) -> bool:
    """Whether the process is that rank itself, not srun, nor the script around it."""
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"SLURM_PROCID=%d" % rank in variables and program.encode() in command


def kill_rank(slurm: DevCluster, job_id: int, rank: int, *, program: str) -> int:
    """With SIGKILL; its pid."""
    processes = processes_of(job_id, str(slurm.layout.slurm_conf))
    found = next(pid for pid in processes if is_rank(pid, rank, program=program))
    os.kill(found, signal.SIGKILL)
    return found
