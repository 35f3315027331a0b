"""One line for a person, on stderr. A closed stderr is no reason to fail a job."""

from __future__ import annotations

import sys

_program = "slurm-power-train"


def speak_as(program: str) -> None:
    """Whose name stands before the lines of this process."""
    global _program
    _program = program


def say(line: str) -> None:
    try:
        print(f"{_program}: {line}", file=sys.stderr, flush=True)
    except (OSError, ValueError):
        sys.stderr = None
