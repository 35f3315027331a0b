"""Runs a function on several gloo ranks. Ranks are forked from a warm process, so none of them imports torch anew."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any


class RankFailed(AssertionError):
    """A rank raised, died, or took too long; the text holds its traceback."""


def run_ranks(function: Callable[..., Any], world_size: int, *arguments: Any, timeout_s: float = 240.0) -> list[Any]:
    """`function(*arguments)` on each rank, with RANK, WORLD_SIZE and the rendezvous in the environment.

    `function` must be importable by name; its result must be picklable. Results come in rank order. The function
    itself opens and closes the process group. Raise RankFailed when a rank fails; the other ranks are then killed.
    """
    context = _fork_server()
    environment = {
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
    }
    processes, pipes = [], []
    for rank in range(world_size):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_run_rank, args=(sender, rank, environment, function, arguments), daemon=True)
        process.start()
        sender.close()
        processes.append(process)
        pipes.append(receiver)
    try:
        return _collect(pipes, timeout_s=timeout_s)
    finally:
        for process in processes:
            if process.is_alive():
                process.join(timeout=5.0)
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, signal.SIGKILL)
            process.join()


def _fork_server() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.preload"])
    return context


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _run_rank(
    sender: Connection, rank: int, environment: dict[str, str], function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    os.environ.update(environment, RANK=str(rank), LOCAL_RANK=str(rank), OMP_NUM_THREADS="1")
    import torch

    torch.set_num_threads(1)
    try:
        answer: tuple[bool, Any] = (True, function(*arguments))
    except BaseException:  # noqa: BLE001  the parent raises it again, as text
        answer = (False, f"rank {rank}:\n{traceback.format_exc()}")
    sender.send_bytes(pickle.dumps(answer))
    sender.close()


def _collect(pipes: list[Connection], *, timeout_s: float) -> list[Any]:
    results: dict[int, Any] = {}
    waiting = {pipe: rank for rank, pipe in enumerate(pipes)}
    while waiting:
        ready = wait(list(waiting), timeout=timeout_s)
        if not ready:
            raise RankFailed(f"ranks {sorted(waiting.values())} did not finish within {timeout_s:.0f} s")
        for pipe in ready:
            assert isinstance(pipe, Connection)
            rank = waiting.pop(pipe)
            try:
                succeeded, result = pickle.loads(pipe.recv_bytes())
            except EOFError:
                raise RankFailed(f"rank {rank} died without a word") from None
            if not succeeded:
                raise RankFailed(result)
            results[rank] = result
    return [results[rank] for rank in sorted(results)]
