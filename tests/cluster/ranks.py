"""Which process of a job is which rank."""

from __future__ import annotations

from pathlib import Path


def is_rank(pid: int, rank: int, *, program: str) -> bool:
    """Whether the process is that rank itself, not srun, nor the script around it."""
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"SLURM_PROCID=%d" % rank in variables and program.encode() in command
