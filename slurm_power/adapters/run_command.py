"""Run a program and wait for its answer: never through a shell, never for longer than asked."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from slurm_power.errors import ConfigError, Unavailable


@dataclass(frozen=True, slots=True)
class CommandResult:
    exit_code: int
    output: str
    errors: str

    def words(self) -> str:
        """What the program said went wrong, on one line."""
        return " ".join((self.errors.strip() or self.output.strip()).split())


class Run(Protocol):
    def __call__(self, argv: Sequence[str], *, timeout_s: float, env: Mapping[str, str]) -> CommandResult:
        """Raise Unavailable when there is no answer in time, ConfigError when there is no such program."""
        ...


def run_command(argv: Sequence[str], *, timeout_s: float, env: Mapping[str, str]) -> CommandResult:
    try:
        done = subprocess.run(
            list(argv),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=dict(env),
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as cause:
        raise Unavailable(f"{argv[0]} did not answer within {timeout_s:g} s") from cause
    except (OSError, ValueError) as cause:
        raise ConfigError(f"{argv[0]}: cannot be run: {cause}") from cause
    # Users' strings may hold any bytes.
    return CommandResult(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
