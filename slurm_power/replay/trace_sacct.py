"""What `sacct -P` prints, by its header. Jobs that ran and ended count; their steps, and jobs without GPUs, do not.

Wanted columns: JobID, User, Submit, Start, End or Elapsed, Timelimit, AllocTRES or ReqTRES, NNodes, State; the power
class and bounds come from AdminComment where it is printed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, tzinfo

from slurm_power.errors import ConfigError
from slurm_power.relocation.job_mark import parse_mark
from slurm_power.relocation.jobs import PowerClass
from slurm_power.replay.trace import BadLine, Trace, TraceJob, collected, limit_at_least

_NEEDED = ("JobID", "Submit")
_NO_TIME = frozenset({"", "Unknown", "None", "INVALID"})
_NO_LIMIT = frozenset({"", "UNLIMITED", "Partition_Limit", "INVALID", "NOT_SET"})
_NOT_ENDED = frozenset({"RUNNING", "PENDING", "SUSPENDED", "COMPLETING", "CONFIGURING", "REQUEUED", "RESIZING"})
_CLOCK = re.compile(r"(?:(?P<days>\d+)-)?(?:(?P<hours>\d+):)?(?P<minutes>\d+):(?P<seconds>\d+)(?:\.\d+)?")
_GPUS = re.compile(r"(?:^|,)gres/gpu(?P<type>:[^=,]+)?=(?P<count>\d+)")


def read_sacct(lines: Iterable[str], *, zone: tzinfo = UTC, default_class: PowerClass = PowerClass.FLEXIBLE) -> Trace:
    """Dates are read in `zone`."""
    rows = iter(enumerate((line.rstrip("\n") for line in lines), start=1))
    header = next(rows, (0, ""))[1].split("|")
    missing = [name for name in _NEEDED if name not in header]
    if not {"AllocTRES", "ReqTRES"} & set(header):
        missing.append("AllocTRES")
    if not {"Elapsed", "End"} & set(header):
        missing.append("Elapsed")
    if missing:
        raise ConfigError(f"sacct dump: there is no column {', '.join(missing)} (made with sacct -P?)")
    jobs, bad, skipped = [], [], Counter[str]()
    for number, line in rows:
        if not line.strip():
            continue
        cells = line.split("|")
        if len(cells) != len(header):
            bad.append(BadLine(number, f"{len(cells)} columns, the header has {len(header)}"))
            continue
        try:
            found = _job(dict(zip(header, cells, strict=True)), zone, default_class)
        except ValueError as cause:
            bad.append(BadLine(number, str(cause)))
            continue
        if isinstance(found, str):
            skipped[found] += 1
        else:
            jobs.append(found)
    return collected(jobs, file_kind="sacct dump", origin_wall_s=0.0, skipped=skipped, bad_lines=bad)


def _job(row: Mapping[str, str], zone: tzinfo, default_class: PowerClass) -> TraceJob | str:
    """The job, or why it is none."""
    job_id = row["JobID"]
    if not job_id or not job_id[0].isdigit():
        raise ValueError(f"JobID {job_id!r} is unreadable")
    if "." in job_id:
        return "steps"
    state = (row.get("State", "").split() or [""])[0].rstrip("+")
    if state in _NOT_ENDED:
        return "not ended"
    runtime_s = _runtime_s(row, zone)
    if runtime_s is None or runtime_s <= 0:
        return "never ran"
    gpus = tres_gpus(row.get("AllocTRES", "")) or tres_gpus(row.get("ReqTRES", ""))
    if gpus == 0:
        return "no GPU asked for"
    submit_s = _wall_s(row["Submit"], zone)
    if submit_s is None:
        raise ValueError(f"Submit {row['Submit']!r} is no time")
    request = parse_mark(row.get("AdminComment", "")).request
    nodes = row.get("NNodes", "")
    job = TraceJob(
        job_id=0,
        user=row.get("User", "") or "unknown",
        submit_s=submit_s,
        gpus=gpus,
        nodes=int(nodes) if nodes.isdigit() and int(nodes) > 0 else None,
        runtime_s=runtime_s,
        time_limit_s=limit_at_least(clock_limit_s(row.get("Timelimit", "")), runtime_s),
        power_class=request.power_class or default_class,
        source_id=job_id,
    )
    return _with_bounds(job, request.max_slowdown_fraction, request.max_delay_s)


def _with_bounds(job: TraceJob, slowdown: float | None, delay_s: float | None) -> TraceJob:
    if slowdown is not None:
        job = replace(job, max_slowdown_fraction=slowdown)
    return job if delay_s is None else replace(job, max_delay_s=delay_s)


def _runtime_s(row: Mapping[str, str], zone: tzinfo) -> float | None:
    """Elapsed leaves out what a job was suspended; End - Start is used without it."""
    if row.get("Elapsed", "") not in _NO_TIME:
        return clock_s(row["Elapsed"])
    start_s, end_s = (_wall_s(row.get(name, ""), zone) for name in ("Start", "End"))
    return None if start_s is None or end_s is None else end_s - start_s


def clock_s(text: str) -> float:
    """ "1-02:03:04", "02:03:04" or "03:04"."""
    match = _CLOCK.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no duration")
    days, hours, minutes, seconds = (int(match[name] or 0) for name in ("days", "hours", "minutes", "seconds"))
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def clock_limit_s(text: str) -> float | None:
    return None if text.strip() in _NO_LIMIT else clock_s(text)


def tres_gpus(text: str) -> int:
    """ "cpu=16,gres/gpu=2,gres/gpu:a100=2,node=1" -> 2: the sum is named beside the types it consists of."""
    total, typed = 0, 0
    for match in _GPUS.finditer(text):
        if match["type"]:
            typed += int(match["count"])
        else:
            total += int(match["count"])
    return total or typed


def _wall_s(text: str, zone: tzinfo) -> float | None:
    text = text.strip()
    if text in _NO_TIME:
        return None
    if text.isdigit():  # SLURM_TIME_FORMAT=%s
        return float(text)
    try:
        when = datetime.fromisoformat(text)
    except ValueError as cause:
        raise ValueError(f"{text!r} is no time") from cause
    return when.replace(tzinfo=when.tzinfo or zone).timestamp()
