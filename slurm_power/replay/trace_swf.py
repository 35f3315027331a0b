"""The Standard Workload Format (Feitelson): 18 numbers a line, `;` before the header, -1 for what is not known.

SWF knows processors, not GPUs: `processors_per_gpu` of them count as one GPU here, rounded up.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from slurm_power.errors import require
from slurm_power.relocation.jobs import PowerClass
from slurm_power.replay.trace import BadLine, Trace, TraceJob, collected, limit_at_least

_FIELDS = 18
_NUMBER, _SUBMIT, _RUN, _ALLOCATED, _REQUESTED, _LIMIT, _USER, _EXECUTABLE = 0, 1, 3, 4, 7, 8, 11, 13
_START_KEY = "UnixStartTime:"


def read_swf(
    lines: Iterable[str], *, processors_per_gpu: int = 1, default_class: PowerClass = PowerClass.FLEXIBLE
) -> Trace:
    require(processors_per_gpu > 0, "processors_per_gpu", processors_per_gpu, "must be above 0")
    origin_wall_s: float | None = None
    jobs, bad, skipped = [], [], Counter[str]()
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if text.startswith(";"):
            origin_wall_s = _start_time(text, origin_wall_s)
        elif text:
            try:
                found = _job(text.split(), processors_per_gpu, default_class)
            except ValueError as cause:
                bad.append(BadLine(number, str(cause)))
                continue
            if isinstance(found, str):
                skipped[found] += 1
            else:
                jobs.append(found)
    notes = (f"{processors_per_gpu} processors count as one GPU",)
    return collected(
        jobs, file_kind="SWF file", origin_wall_s=origin_wall_s, skipped=skipped, bad_lines=bad, notes=notes
    )


def _start_time(text: str, before: float | None) -> float | None:
    words = text.lstrip("; ").split()
    if len(words) > 1 and words[0] == _START_KEY and words[1].isdigit() and int(words[1]) > 0:
        return float(words[1])
    return before


def _job(words: list[str], processors_per_gpu: int, default_class: PowerClass) -> TraceJob | str:
    """The job, or why it is none."""
    if len(words) != _FIELDS:
        raise ValueError(f"{len(words)} fields, SWF has {_FIELDS}")
    values = [float(word) for word in words]
    if not all(math.isfinite(value) for value in values):
        raise ValueError("a field is not finite")
    if values[_SUBMIT] < 0:
        raise ValueError("its submission is not known")
    runtime_s = values[_RUN]
    if runtime_s <= 0:
        return "never ran, or its run time is not known"
    processors = values[_REQUESTED] if values[_REQUESTED] > 0 else values[_ALLOCATED]
    if processors <= 0:
        return "its processors are not known"
    executable = int(values[_EXECUTABLE])
    return TraceJob(
        job_id=0,
        user=f"user{int(values[_USER])}" if values[_USER] >= 0 else "unknown",
        submit_s=values[_SUBMIT],
        gpus=math.ceil(processors / processors_per_gpu),
        runtime_s=runtime_s,
        time_limit_s=limit_at_least(values[_LIMIT] if values[_LIMIT] > 0 else None, runtime_s),
        power_class=default_class,
        workload=f"executable{executable}" if executable >= 0 else "",
        source_id=words[_NUMBER],
    )
