"""control.json in the run folder: how a person or the node's agent steers a run. Rank 0 looks at it between steps."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from training.errors import StorageError

CONTROL_FILE = "control.json"
MAX_BYTES = 1 << 16
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlRequest:
    """What is asked for; None and False: leave as it is."""

    asked_at_unix_s: float
    micro_sequences: int | None = None
    """Of one forward pass; the global batch, and so the loss curve, stays."""

    ramp_held: bool | None = None
    """True: let power rise no further; False: go on with the ramp."""

    checkpoint_now: bool = False


def write_control(run_folder: Path, request: ControlRequest) -> None:
    """Replace the file in one move, for the owner alone. Raise StorageError when it cannot be written."""
    path = run_folder / CONTROL_FILE
    new = run_folder / f"{CONTROL_FILE}.{os.getpid()}.new"
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(json.dumps(asdict(request)) + "\n")
        new.replace(path)
    except OSError as cause:
        raise StorageError(f"{path}: {cause.strerror}") from cause


class ControlFile:
    """Tells each request once, however often it is asked."""

    def __init__(self, run_folder: Path, *, not_before_unix_s: float) -> None:
        """Requests asked earlier than `not_before_unix_s` were meant for a run that has ended."""
        self._path = run_folder / CONTROL_FILE
        self._not_before_unix_s = not_before_unix_s
        self._seen: tuple[int, int, int] | None = None

    def poll(self) -> ControlRequest | str | None:
        """A new request; why a new file is ignored, in one line; or None."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        except OSError as cause:
            return self._once((0, 0, cause.errno or 0), f"{self._path} is ignored: {cause.strerror}")
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(file.fileno())
            mark = (found.st_ino, found.st_mtime_ns, found.st_size)
            if mark == self._seen:
                return None
            self._seen = mark
            problem = _not_trusted(found)
            if problem is None:
                return self._parsed(file.read(MAX_BYTES))
            return f"{self._path} is ignored: {problem}"

    def _once(self, mark: tuple[int, int, int], text: str) -> str | None:
        if mark == self._seen:
            return None
        self._seen = mark
        return text

    def _parsed(self, data: bytes) -> ControlRequest | str | None:
        try:
            request = _request(json.loads(data))
        except (ValueError, RecursionError) as cause:
            return f"{self._path} is ignored: {cause}"
        return None if request.asked_at_unix_s < self._not_before_unix_s else request


def _not_trusted(found: os.stat_result) -> str | None:
    if not stat.S_ISREG(found.st_mode):
        return "not a regular file"
    if found.st_uid != os.geteuid():
        return f"belongs to user {found.st_uid}, the run to {os.geteuid()}"
    if found.st_mode & _OTHERS:
        return f"others have access (mode {stat.S_IMODE(found.st_mode):o}); must be 600"
    return None


def _request(values: Any) -> ControlRequest:
    """Raise ValueError, with the reason, for anything but a request."""
    known = [field.name for field in fields(ControlRequest)]
    if not isinstance(values, dict):
        raise ValueError("must hold an object")
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}; known are {', '.join(known)}")
    request = ControlRequest(**{"asked_at_unix_s": None, **values})
    _check("asked_at_unix_s", request.asked_at_unix_s, (int, float), "a number")
    _check("micro_sequences", request.micro_sequences, (int, type(None)), "a whole number")
    _check("ramp_held", request.ramp_held, (bool, type(None)), "true or false", booleans=True)
    _check("checkpoint_now", request.checkpoint_now, (bool,), "true or false", booleans=True)
    return request


def _check(key: str, value: Any, kinds: tuple[type, ...], words: str, *, booleans: bool = False) -> None:
    if not isinstance(value, kinds) or (isinstance(value, bool) and not booleans):
        raise ValueError(f"{key} = {value!r}: must be {words}")
