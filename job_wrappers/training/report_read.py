"""Reads a run folder for its report. Damage by a crash is passed over and counted; all else is one clear line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from job_wrappers.training.attempts import ATTEMPTS_FILE, ENERGY_FILE, Attempt, read_attempts
from training.errors import ConfigError
from training.parallel.plan import ParallelPlan
from training.run.listener import RunEvent, StepRecord
from training.run.records import EVENTS_FILE, STEPS_FILE, read_events, read_steps

FILES = (ATTEMPTS_FILE, ENERGY_FILE, EVENTS_FILE, STEPS_FILE)


@dataclass(frozen=True, slots=True)
class RunRecords:
    """`attempts` is never empty."""

    folder: Path
    attempts: list[Attempt]
    steps: list[StepRecord]
    events: list[RunEvent]
    torn_lines: int = 0
    """Cut off by a crash in the middle of writing, and left out."""


def read_run(folder: Path) -> RunRecords:
    """Raise ConfigError, in one line, for a folder that is missing, unreadable, empty or of something else."""
    if not folder.is_dir():
        raise ConfigError(f"run folder = {folder}: no such folder")
    try:
        attempts = read_attempts(folder)
        for attempt in attempts:
            ParallelPlan(**attempt.begin.plan)
        steps, events = read_steps(folder), read_events(folder)
        torn_lines = sum(_torn(folder / name) for name in FILES)
    except OSError as cause:
        raise ConfigError(f"{cause.filename}: {cause.strerror}") from cause
    except (AttributeError, KeyError, TypeError) as cause:
        raise ConfigError(f"{folder}: written by another version of slurm-power-train ({cause})") from cause
    if not attempts:
        why = f"there is no {ATTEMPTS_FILE} beside its steps" if steps else "no run has begun there"
        raise ConfigError(f"run folder = {folder}: {why}")
    return RunRecords(folder, attempts, steps, events, torn_lines)


def _torn(path: Path) -> int:
    if not path.exists():
        return 0
    *whole, rest = path.read_bytes().split(b"\n")
    return sum(not _is_json(line) for line in whole) + bool(rest)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
