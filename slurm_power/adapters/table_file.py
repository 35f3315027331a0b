"""A small table that others read, replaced as a whole: the old one or the new one, never a mix."""

from __future__ import annotations

import os
from pathlib import Path

from slurm_power.errors import Unavailable


def write_table(path: Path, text: str) -> None:
    """Readable by all (slurmctld runs as another user). Raise Unavailable if it cannot be written."""
    new = path.with_name(path.name + ".new")
    try:
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with os.fdopen(file, "w", encoding="utf-8") as writer:
            os.fchmod(writer.fileno(), 0o644)
            writer.write(text)
        new.replace(path)
    except OSError as cause:
        raise Unavailable(f"{path}: cannot write the table: {cause}") from cause
