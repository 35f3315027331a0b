"""The run folder's JSON lines: steps.jsonl and events.jsonl. One writer (rank 0); a torn last line is dropped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from training.errors import StorageError
from training.run.listener import NullListener, RunEvent, StepRecord

STEPS_FILE, EVENTS_FILE = "steps.jsonl", "events.jsonl"


class RecordFiles(NullListener):
    """Writes what it hears. `begin_after_step` drops later steps of an earlier, lost attempt: the curve stays one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin_after_step(self, step: int) -> None:
        """Raise StorageError when the folder cannot be written."""
        kept = [record for record in _lines(self._folder / STEPS_FILE) if _step_of(record) <= step]
        _replace(self._folder / STEPS_FILE, kept)
        _replace(self._folder / EVENTS_FILE, list(_lines(self._folder / EVENTS_FILE)))

    def on_step(self, record: StepRecord) -> None:
        _append(self._folder / STEPS_FILE, asdict(record))

    def on_event(self, event: RunEvent) -> None:
        _append(self._folder / EVENTS_FILE, asdict(event))


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


def _append(path: Path, record: Mapping[str, Any]) -> None:
    line = json.dumps(record, allow_nan=False, separators=(",", ":")) + "\n"
    try:
        with path.open("a") as file:
            file.write(line)
    except OSError as cause:
        raise StorageError(f"{path}: {cause.strerror}") from cause


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
