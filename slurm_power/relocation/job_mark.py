"""The one line that job_submit.lua and the controller keep in a job's AdminComment.

`slurm-power:class=flexible,cap=300,clock=1200,slowdown=0.2,delay=3600,foreseen=350,deferred=1700000000`
Users cannot write AdminComment, so what stands here can be trusted, and `deferred` marks what we did
and may undo. Text around the mark (other tools use the field too) is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

from slurm_power.relocation.jobs import Job, JobState, PowerClass, PowerRequest

_MARK = re.compile(r"slurm-power:([a-z_]+=[A-Za-z0-9_.]+(?:,[a-z_]+=[A-Za-z0-9_.]+)*)")


@dataclass(frozen=True, slots=True)
class JobMark:
    request: PowerRequest = PowerRequest()
    deferred_until_wall_s: float | None = None  # set by us; None: not deferred by us
    capped_watts: float | None = None  # cap per GPU set by us; None: not capped by us
    requeued: int = 0  # how often we requeued it
    licenses_before: int | None = None  # the watts licence that a cap of ours has shrunk
    drawn_watts: float | None = None  # what its busiest GPU drew before our first cap: never read from a capped draw
    foreseen_watts: float | None = None  # per GPU, what its licence counts: its owner's earlier jobs drew no more


@lru_cache(maxsize=65_536)
def parse_mark(admin_comment: str) -> JobMark:
    """Read the mark; unreadable values are treated as absent, for the field is shared with others."""
    found = _MARK.search(admin_comment)
    if found is None:
        return JobMark()
    pairs = dict(pair.split("=", 1) for pair in found.group(1).split(","))
    power_class = pairs.get("class")
    request = PowerRequest(
        gpu_cap_watts=_number(pairs.get("cap")),
        gpu_clock_mhz=_integer(pairs.get("clock")),
        power_class=PowerClass(power_class) if power_class in set(PowerClass) else None,
        max_slowdown_fraction=_number(pairs.get("slowdown")),
        max_delay_s=_number(pairs.get("delay")),
    )
    return JobMark(
        request=request,
        deferred_until_wall_s=_number(pairs.get("deferred")),
        capped_watts=_number(pairs.get("capped")),
        requeued=_integer(pairs.get("requeued")) or 0,
        licenses_before=_integer(pairs.get("licenses_before")),
        foreseen_watts=_number(pairs.get("foreseen")),
        drawn_watts=_number(pairs.get("drawn")),
    )


def with_mark(admin_comment: str, mark: JobMark) -> str:
    """`admin_comment` with its mark replaced (or appended)."""
    request = mark.request
    values: list[tuple[str, object | None]] = [
        ("class", request.power_class.value if request.power_class else None),
        ("cap", _plain(request.gpu_cap_watts)),
        ("clock", request.gpu_clock_mhz),
        ("slowdown", _plain(request.max_slowdown_fraction)),
        ("delay", _plain(request.max_delay_s)),
        ("foreseen", _plain(mark.foreseen_watts)),
        ("deferred", _plain(mark.deferred_until_wall_s)),
        ("capped", _plain(mark.capped_watts)),
        ("requeued", mark.requeued or None),
        ("licenses_before", mark.licenses_before),
        ("drawn", _plain(mark.drawn_watts)),
    ]
    text = ",".join(f"{key}={value}" for key, value in values if value is not None)
    bare = _MARK.sub("", admin_comment).strip()
    if not text:
        return bare
    return f"{bare} slurm-power:{text}".strip()


def without_actions(mark: JobMark) -> JobMark:
    """The mark as it was before we touched the job."""
    return replace(mark, deferred_until_wall_s=None, capped_watts=None, licenses_before=None, drawn_watts=None)


def marked_caps(jobs: Iterable[Job]) -> dict[int, float]:
    """Job -> watts per GPU, as the marks of running jobs say that we have capped them."""
    marks = {job.job_id: parse_mark(job.admin_comment) for job in jobs if job.state is JobState.RUNNING}
    return {job_id: mark.capped_watts for job_id, mark in marks.items() if mark.capped_watts is not None}


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _integer(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None


def _plain(value: float | None) -> str | None:
    return None if value is None else f"{value:.6f}".rstrip("0").rstrip(".")
