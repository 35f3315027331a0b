"""Runs one command as if the caller had: same signals in, same exit code out."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

FORWARDED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCONT,
    signal.SIGTSTP,
)
_SI_KERNEL = 0x80  # sigaction(2): sent by the kernel, here: by the terminal to the whole foreground group

NOT_FOUND, NOT_EXECUTABLE = 127, 126  # as a shell says it


def run_child(command: Sequence[str], *, env: Mapping[str, str]) -> int:
    """Exit code of `command`, 128+n when signal n ended it. Raise OSError when it cannot be started.

    The signals are blocked and waited for, so none is lost between a look and a wait. The child starts with
    the mask that we were started with.
    """
    waited = {*FORWARDED, signal.SIGCHLD}
    found_mask = signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    try:
        child = subprocess.Popen(
            command, env=env, preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, found_mask) and None
        )
        while child.poll() is None:
            _pass_on(signal.sigwaitinfo(waited), child)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, found_mask)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _pass_on(received: signal.struct_siginfo, child: subprocess.Popen[bytes]) -> None:
    number = received.si_signo
    if number == signal.SIGCHLD:
        return
    if received.si_code != _SI_KERNEL:  # what the terminal sent has reached the child already
        child.send_signal(number)
    if number == signal.SIGTSTP:
        os.kill(os.getpid(), signal.SIGSTOP)  # stop as the child does, or a shell would wait for us
