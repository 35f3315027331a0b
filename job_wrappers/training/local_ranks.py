"""Several ranks on this machine without Slurm: for a workstation, a laptop, a test."""

from __future__ import annotations

import ctypes
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence

from job_wrappers.child import FORWARDED
from job_wrappers.training.place import LOCAL_VARIABLE, local_places, to_variable
from job_wrappers.training.say import say
from job_wrappers.training.team import LOST_GRACE_S

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1  # prctl(2)

_POLL_S = 0.5
_END_S = LOST_GRACE_S + 5.0
"""How long the others may live after one rank has failed; then they are killed."""


def run_local_ranks(count: int, command: Sequence[str], *, environment: Mapping[str, str] = os.environ) -> int:
    """Run `command` once for each rank, pass signals on, and return the first exit code that is not 0: rank 0's if it
    has one, else the lowest rank's; 128+n for a rank that signal n ended."""
    places = local_places(count, key=f"local-{secrets.token_hex(8)}", cpus=len(os.sched_getaffinity(0)))
    waited = {*FORWARDED, signal.SIGCHLD}
    found_mask = signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    ranks: list[subprocess.Popen[bytes]] = []
    parent = os.getpid()
    try:
        for place in places:
            ranks.append(
                subprocess.Popen(
                    command,
                    env={**environment, LOCAL_VARIABLE: to_variable(place)},
                    preexec_fn=lambda: _begin_as_rank(found_mask, parent),
                )
            )
        _wait(ranks, waited)
    finally:
        for rank in ranks:
            if rank.poll() is None:
                rank.kill()
            rank.wait()
        signal.pthread_sigmask(signal.SIG_SETMASK, found_mask)
    return next((code for code in map(_exit_code, ranks) if code != 0), 0)


def _begin_as_rank(mask: Collection[int], parent: int) -> None:
    """A parent that is killed can tell nobody, so the kernel does."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if os.getppid() != parent:
        os._exit(128 + signal.SIGTERM)


def _wait(ranks: list[subprocess.Popen[bytes]], waited: set[signal.Signals]) -> None:
    failed_at_s: float | None = None
    while any(rank.poll() is None for rank in ranks):
        received = signal.sigtimedwait(waited, _POLL_S)
        if received is not None and received.si_signo != signal.SIGCHLD and received.si_pid != 0:
            for rank in ranks:  # what the terminal sent (from the kernel: pid 0) has reached them already
                if rank.poll() is None:
                    rank.send_signal(received.si_signo)
        failed = [number for number, rank in enumerate(ranks) if rank.poll() not in (None, 0)]
        if failed and failed_at_s is None:
            failed_at_s = time.monotonic()
            _say_signal(failed[0], ranks[failed[0]])
        if failed_at_s is not None and time.monotonic() - failed_at_s > _END_S:
            return


def _say_signal(number: int, rank: subprocess.Popen[bytes]) -> None:
    """A rank that ended by itself has said why."""
    if rank.returncode < 0:
        say(f"rank {number} (pid {rank.pid}) was ended by signal {-rank.returncode}")


def _exit_code(rank: subprocess.Popen[bytes]) -> int:
    return rank.returncode if rank.returncode >= 0 else 128 - rank.returncode
