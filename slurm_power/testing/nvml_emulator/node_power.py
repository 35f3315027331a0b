"""Whether an emulated node is switched off, for SuspendProgram and ResumeProgram on an emulated cluster.

A file beside the node's state says so. Nothing is switched: Slurm's daemons run on, only the draw is that of a machine
that is off.
"""

from __future__ import annotations

import sys
from pathlib import Path

OFF_WATTS = 15.0
"""A management controller stays on (choice)."""


def is_off(state_file: Path) -> bool:
    return _mark(state_file).exists()


def switch_off(state_file: Path) -> None:
    _mark(state_file).touch()


def switch_on(state_file: Path) -> None:
    _mark(state_file).unlink(missing_ok=True)


def _mark(state_file: Path) -> Path:
    return state_file.with_name(state_file.name + ".off")


def main(arguments: list[str]) -> int:
    actions = {"switch_off": switch_off, "switch_on": switch_on}
    if len(arguments) != 2 or arguments[0] not in actions or not Path(arguments[1]).exists():
        sys.stderr.write("usage: node_power switch_off|switch_on STATE_FILE\n")
        return 2
    actions[arguments[0]](Path(arguments[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
