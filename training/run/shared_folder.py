"""Whether all ranks write to the same folder: a checkpoint half on one node's own disk would be found out too late."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path

from training.checkpoint.agreement import Agreement, agree_on
from training.errors import ConfigError

SEEN_WITHIN_S = 10.0
"""How long a network file system may take to show one node what another has written."""


def check_shared(folder: Path, agreement: Agreement, *, key: str) -> None:
    """Raise ConfigError, on all ranks, unless all can write to the same `folder`. Collective."""
    problem = None
    name = f".shared-{secrets.token_hex(8)}" if agreement.rank == 0 else ""
    mark = folder / agreement.gather(name.encode())[0].decode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if agreement.rank == 0:
            mark.touch()
        elif not os.access(folder, os.W_OK | os.X_OK):
            problem = "Permission denied"
    except OSError as cause:
        problem = str(cause.strerror)
    problem = agree_on(agreement, problem)
    if problem is None:
        problem = agree_on(
            agreement, None if _seen(mark) else "does not see what rank 0 wrote; all nodes must share it"
        )
    if agreement.rank == 0:
        with contextlib.suppress(OSError):  # it may be the folder that is missing
            mark.unlink()
    if problem is not None:
        raise ConfigError(f"{key} = {folder}: {problem}")


def _seen(mark: Path) -> bool:
    until_s = time.monotonic() + SEEN_WITHIN_S
    while not mark.exists():
        if time.monotonic() > until_s:
            return False
        time.sleep(0.1)
    return True
