"""Ranks as processes of their own whose exit codes and last words count: they may be killed, hang, or leave early."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.training.ranks import _fork_server, _free_port


@dataclass(frozen=True)
class RankProcesses:
    processes: list[Any]
    folder: Path

    def exit_codes(self, *, timeout_s: float = 240.0) -> list[int | None]:
        """By rank; None for one that still runs after `timeout_s`, -n for one that signal n ended."""
        for process in self.processes:
            process.join(timeout_s)
        return [process.exitcode for process in self.processes]

    def said(self, rank: int) -> list[str]:
        """The lines that a rank has written to stderr."""
        return (self.folder / f"rank-{rank}.stderr").read_text().splitlines()


@contextmanager
def rank_processes(
    folder: Path, function: Callable[..., int], world_size: int, *arguments: Any
) -> Iterator[RankProcesses]:
    """`function(*arguments)` on each rank: what it returns is the exit code. Who still runs at the end is killed."""
    context = _fork_server()
    environment = {"WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1"}
    environment["MASTER_PORT"] = str(_free_port())
    processes = [
        context.Process(target=_run, args=(rank, environment, folder, function, arguments), daemon=True)
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    try:
        yield RankProcesses(processes, folder)
    finally:
        for process in processes:
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)
            process.join()


def _run(
    rank: int, environment: dict[str, str], folder: Path, function: Callable[..., int], arguments: tuple[Any, ...]
) -> None:
    os.environ.update(environment, RANK=str(rank), LOCAL_RANK=str(rank), OMP_NUM_THREADS="1")
    descriptor = os.open(folder / f"rank-{rank}.stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(descriptor, 2)
    import torch

    torch.set_num_threads(1)
    code = function(*arguments)
    sys.stderr.flush()
    os._exit(code)
