"""What a job will draw, from what its owner's earlier jobs of that name drew. Pure.

It feeds the licence of new jobs through etc/job_submit.lua, which reads the table that `table_text` makes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from slurm_power.relocation.job_power import JobPower
from slurm_power.relocation.jobs import JobState

MIN_TICKS = 5
"""A job seen less often taught nothing: it may never have got to work."""

MIN_RUNS, MIN_RUNS_OF_USER = 3, 10
"""Fewer runs than this say nothing about the next one: the board's maximum counts."""

RUNS_KEPT = 10
MARGIN = 1.05
MAX_ENTRIES = 5000
ANY_NAME = "*"

_DIGITS = re.compile(r"[0-9]+")
_PLAIN = re.compile(r"[A-Za-z0-9_.#-]{1,64}")

Key = tuple[int, str]  # uid and name


def name_key(name: str) -> str:
    """The same for `train_1` and `train_27`; ANY_NAME for names that are no keys (`known_name` in job_submit.lua)."""
    key = _DIGITS.sub("#", name)
    return key if _PLAIN.fullmatch(key) else ANY_NAME


@dataclass(slots=True)
class _Seen:
    uid: int
    name: str
    gpu_watts: float
    ticks: int


@dataclass(slots=True)
class JobWatts:
    """`runs`: of each key the highest uncapped draw per GPU of the last runs, oldest first."""

    runs: dict[Key, list[float]] = field(default_factory=dict)
    _running: dict[int, _Seen] = field(default_factory=dict)

    def observe(self, powers: Iterable[JobPower]) -> bool:
        """All jobs that Slurm knows, once a tick. True: a job has ended and taught something."""
        alive = set()
        for power in powers:
            job = power.job
            if job.state is JobState.PENDING:
                continue
            alive.add(job.job_id)
            if power.drawn_gpu_watts is not None and job.gpus > 0:
                seen = self._running.setdefault(job.job_id, _Seen(job.uid, name_key(job.name), 0.0, 0))
                seen.gpu_watts, seen.ticks = max(seen.gpu_watts, power.gpu_watts), seen.ticks + 1
        ended = [self._running.pop(job_id) for job_id in self._running.keys() - alive]
        taught = [seen for seen in ended if seen.ticks >= MIN_TICKS]
        for seen in taught:
            self._learn((seen.uid, seen.name), seen.gpu_watts)
            if seen.name != ANY_NAME:
                self._learn((seen.uid, ANY_NAME), seen.gpu_watts)
        return bool(taught)

    def foreseen(self, *, gpu_max_watts: float) -> dict[Key, int]:
        """Watts per GPU of each key that has been seen often enough and stays below the board's maximum."""
        found = {}
        for (uid, name), watts in self.runs.items():
            enough = len(watts) >= (MIN_RUNS_OF_USER if name == ANY_NAME else MIN_RUNS)
            expected = round(MARGIN * max(watts))
            if enough and expected < gpu_max_watts:
                found[uid, name] = expected
        return found

    def _learn(self, key: Key, gpu_watts: float) -> None:
        watts = self.runs.pop(key, [])  # a key that is used moves to the end
        self.runs[key] = [*watts, round(gpu_watts, 1)][-RUNS_KEPT:]
        while len(self.runs) > MAX_ENTRIES:
            del self.runs[next(iter(self.runs))]


def table_text(foreseen: Mapping[Key, int]) -> str:
    """A line for each key: uid, name, watts per GPU."""
    return "".join(f"{uid} {name} {watts}\n" for (uid, name), watts in sorted(foreseen.items()))


def to_records(runs: Mapping[Key, Sequence[float]]) -> list[dict[str, str | int]]:
    return [
        {"uid": uid, "name": name, "watts": " ".join(f"{one:.1f}" for one in watts)}
        for (uid, name), watts in runs.items()
    ]


def from_records(records: Iterable[Mapping[str, object]]) -> dict[Key, list[float]]:
    """Raise ValueError for what `to_records` did not write."""
    try:
        return {
            (int(str(record["uid"])), str(record["name"])): [float(one) for one in str(record["watts"]).split()]
            for record in records
        }
    except KeyError as cause:
        raise ValueError(f"a record without {cause}") from cause
