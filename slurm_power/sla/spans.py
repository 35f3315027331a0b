"""Which job held which GPU from when to when, from the agents' marks. Pure.

A mark says who holds a GPU from then on: "begin" and "held" name a job, "end" and "free" nobody. Agents repeat them, so
a mark that was lost costs minutes, not the job.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from slurm_power.sla.board import Window

TAKEN = ("begin", "held")


@dataclass(frozen=True, slots=True)
class Mark:
    wall_s: float
    node: str
    uuid: str
    event: str
    job_id: int | None
    uid: int | None


@dataclass(frozen=True, slots=True)
class JobSpan:
    job_id: int
    uid: int | None
    node: str
    uuid: str
    begin_wall_s: float
    end_wall_s: float | None
    """None: as far as anybody knows it still runs."""


def job_spans(marks: Iterable[Mark]) -> list[JobSpan]:
    """In order of their begin."""
    by_gpu: dict[tuple[str, str], list[Mark]] = {}
    for mark in sorted(marks, key=lambda one: one.wall_s):
        by_gpu.setdefault((mark.node, mark.uuid), []).append(mark)
    found = [span for marks_of_one in by_gpu.values() for span in _spans_of_one(marks_of_one)]
    return sorted(found, key=lambda span: (span.begin_wall_s, span.node, span.uuid))


def clipped(spans: Iterable[JobSpan], period: Window) -> list[JobSpan]:
    """The parts of them that lie in a period; the ends of what still runs is its end."""
    found = []
    for span in spans:
        begin_s = max(span.begin_wall_s, period.begin_wall_s)
        end_s = period.end_wall_s if span.end_wall_s is None else min(span.end_wall_s, period.end_wall_s)
        if end_s > begin_s:
            found.append(replace(span, begin_wall_s=begin_s, end_wall_s=end_s))
    return found


def _spans_of_one(marks: Sequence[Mark]) -> Iterable[JobSpan]:
    held: JobSpan | None = None
    for mark in marks:
        if held is not None and mark.event in TAKEN and mark.job_id == held.job_id:
            continue
        if held is not None and (mark.event != "end" or mark.job_id in (held.job_id, None)):
            yield replace(held, end_wall_s=mark.wall_s)
            held = None
        if mark.event in TAKEN and mark.job_id is not None:
            held = JobSpan(mark.job_id, mark.uid, mark.node, mark.uuid, mark.wall_s, None)
    if held is not None:
        yield held
