"""One line for a person, on stderr. A closed stderr is no reason to fail a job."""

from __future__ import annotations

import sys

PROGRAM = "slurm-power-train"


def say(line: str) -> None:
    try:
        print(f"{PROGRAM}: {line}", file=sys.stderr, flush=True)
    except (OSError, ValueError):
        sys.stderr = None
