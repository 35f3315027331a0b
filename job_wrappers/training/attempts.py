"""What a run folder keeps about each start of the run: its job, its plan, its joules. One writer, rank 0.

`attempts.jsonl` has a line when an attempt begins and one when it ends in order; `energy.jsonl` the job's joules over
time. Beside the run folder, `job-<id>` names it, so that `slurm-power-train report <id>` finds it.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from training.errors import ConfigError, StorageError

log = logging.getLogger(__name__)

ATTEMPTS_FILE, ENERGY_FILE = "attempts.jsonl", "energy.jsonl"

Trace = list[tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptBegin:
    job_id: int | None
    restart_count: int
    nodes: tuple[str, ...]
    began_at_unix_s: float
    trained_from_unix_s: float
    """When the model was ready: the first step came next."""

    resumed_from_step: int | None
    plan: Mapping[str, Any]
    policy: str
    model: Mapping[str, Any]
    """Its config.json."""

    parameters: int
    world_size: int
    steps: int
    global_sequences: int
    sequence_length_tokens: int
    peak_flops_per_s: float | None
    bytes_formula_by_axis: Mapping[str, float]
    """Of one step, all ranks together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEnd:
    ended_at_unix_s: float
    exit_code: int
    reason: str
    step: int | None
    gpus: int
    used_joules: float | None
    energy_unknown: str | None
    """Why used_joules is None."""


@dataclass(frozen=True, slots=True)
class Attempt:
    begin: AttemptBegin
    end: AttemptEnd | None
    """None: it runs, or was killed."""

    trace: Trace = field(default_factory=list)
    """(Unix time, joules used since it began)."""

    @property
    def used_joules(self) -> float | None:
        """Of a killed attempt, what the last row says."""
        if self.end is not None:
            return self.end.used_joules
        return self.trace[-1][1] if self.trace else None


class AttemptFiles:
    """`take_trace`: new rows for energy.jsonl."""

    def __init__(self, folder: Path, *, take_trace: Callable[[], Trace]) -> None:
        self._folder, self._take_trace = folder, take_trace
        self._number = 0

    def begin(self, begin: AttemptBegin) -> None:
        """Raise StorageError when the folder cannot be written."""
        self._number = 1 + sum("began_at_unix_s" in line for line in _lines(self._folder / ATTEMPTS_FILE))
        self._append(ATTEMPTS_FILE, [{"attempt": self._number, **asdict(begin)}])
        if begin.job_id is not None:
            _write_pointer(self._folder, begin.job_id)

    def flush(self) -> None:
        rows = [{"attempt": self._number, "at_unix_s": at, "used_joules": used} for at, used in self._take_trace()]
        if rows:
            self._append(ENERGY_FILE, rows)

    def end(self, end: AttemptEnd) -> None:
        self.flush()
        self._append(ATTEMPTS_FILE, [{"attempt": self._number, **asdict(end)}])

    def _append(self, name: str, rows: list[dict[str, Any]]) -> None:
        text = "".join(json.dumps(row, allow_nan=False, separators=(",", ":")) + "\n" for row in rows)
        path = self._folder / name
        try:
            with path.open("a") as file:
                file.write(text)
        except OSError as cause:
            raise StorageError(f"{path}: {cause.strerror}") from cause


def read_attempts(folder: Path) -> list[Attempt]:
    """In the order they began. Raise ConfigError for a folder of something else."""
    begins: dict[int, AttemptBegin] = {}
    ends: dict[int, AttemptEnd] = {}
    traces: dict[int, Trace] = {}
    try:
        for line in _lines(folder / ATTEMPTS_FILE):
            number = int(line.pop("attempt"))
            if "began_at_unix_s" in line:
                begins[number] = AttemptBegin(**{**line, "nodes": tuple(line["nodes"])})
            else:
                ends[number] = AttemptEnd(**line)
        for line in _lines(folder / ENERGY_FILE):
            row = (float(line["at_unix_s"]), float(line["used_joules"]))
            traces.setdefault(int(line["attempt"]), []).append(row)
    except (KeyError, TypeError, ValueError) as cause:
        raise ConfigError(f"{folder}: written by another version of slurm-power-train ({cause})") from cause
    return [Attempt(begin, ends.get(number), traces.get(number, [])) for number, begin in sorted(begins.items())]


def find_run_folder(text: str, here: Path) -> Path:
    """A run folder's path, or a Slurm job id whose `job-<id>` lies in `here` or one folder below. Raise ConfigError."""
    path = here / text
    if path.is_dir():
        return path
    if text.isdigit():
        name = f"job-{text}"
        for pointer in (here / name, *sorted(here.glob(f"*/{name}"))):
            if pointer.is_file():
                return Path(pointer.read_text().strip())
        raise ConfigError(f"job = {text}: no {name} in {here} or the folders in it; name the run folder")
    raise ConfigError(f"run = {text}: neither a run folder nor a job id")


def _write_pointer(folder: Path, job_id: int) -> None:
    """Not worth a training: a warning when it cannot be written."""
    pointer = folder.resolve().parent / f"job-{job_id}"
    new = pointer.with_name(f"{pointer.name}.new.{os.getpid()}")
    try:
        new.write_text(f"{folder.resolve()}\n")
        new.replace(pointer)
    except OSError as error:
        log.warning("%s: %s; `report %d` will need the run folder's name", pointer, error.strerror, job_id)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    for line in path.read_bytes().split(b"\n")[:-1]:  # the rest was cut off by a crash
        try:
            record = json.loads(line)
        except ValueError:
            continue  # torn by a crash and appended to since
        if isinstance(record, dict):
            yield record
