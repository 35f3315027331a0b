"""The run folder's JSON lines: steps.jsonl and events.jsonl. One writer (rank 0); a torn last line is dropped."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from training.errors import StorageError
from training.run.listener import NullListener, RunEvent, StepRecord

log = logging.getLogger(__name__)

STEPS_FILE, EVENTS_FILE = "steps.jsonl", "events.jsonl"


class RecordFiles(NullListener):
    """Writes what it hears. What a full disk refuses is kept, and written once there is room."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: dict[str, list[str]] = {STEPS_FILE: [], EVENTS_FILE: []}
        self._warned = False

    def begin_after_step(self, step: int) -> None:
        """Drop later steps of an attempt that was lost, so that the curve stays one.

        Raise StorageError when the folder cannot be written.
        """
        kept = [record for record in _lines(self._folder / STEPS_FILE) if _step_of(record) <= step]
        _replace(self._folder / STEPS_FILE, kept)
        _replace(self._folder / EVENTS_FILE, list(_lines(self._folder / EVENTS_FILE)))

    def on_step(self, record: StepRecord) -> None:
        self._append(STEPS_FILE, asdict(record))

    def on_event(self, event: RunEvent) -> None:
        self._append(EVENTS_FILE, asdict(event))

    def _append(self, name: str, record: Mapping[str, Any]) -> None:
        waiting = self._waiting[name]
        waiting.append(json.dumps(record, allow_nan=False, separators=(",", ":")) + "\n")
        try:
            _append(self._folder / name, "".join(waiting))
        except OSError as cause:
            if not self._warned:
                log.warning("%s: %s; records wait for room", self._folder / name, cause.strerror)
            self._warned = True
        else:
            waiting.clear()


def read_steps(folder: Path) -> list[StepRecord]:
    """Records of a run folder, in order; [] when there are none yet."""
    return [_step_record(line) for line in _lines(folder / STEPS_FILE)]


def read_events(folder: Path) -> list[RunEvent]:
    return [RunEvent(**line) for line in _lines(folder / EVENTS_FILE)]


def _step_record(line: Mapping[str, Any]) -> StepRecord:
    return StepRecord(**{**line, "busy_fraction_by_stage": tuple(line["busy_fraction_by_stage"])})


def _step_of(record: Mapping[str, Any]) -> int:
    return int(record.get("step", 0))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    for line in path.read_bytes().split(b"\n")[:-1]:  # what follows the last newline was cut off by a crash
        try:
            yield json.loads(line)
        except ValueError:
            continue  # torn in the middle by a crash and appended to since; no reader can use it


def _append(path: Path, text: str) -> None:
    """All of it or nothing. Raise OSError when the disk refuses."""
    data = text.encode()
    with path.open("ab", buffering=0) as file:
        before_bytes = file.seek(0, os.SEEK_END)
        try:
            written_bytes = file.write(data)
            if written_bytes != len(data):  # the last that fits on a full disk
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            file.truncate(before_bytes)
            raise


def _replace(path: Path, records: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(record, separators=(",", ":")) + "\n" for record in records)
    new = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as cause:
        raise StorageError(f"{path}: {cause.strerror}") from cause
