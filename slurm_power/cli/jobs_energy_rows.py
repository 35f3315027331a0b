"""Energy accounts as rows: what the table, the JSON and the CSV of `slurm-power jobs energy` show."""

from __future__ import annotations

import csv
import pwd
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TextIO

from slurm_power.adapters.energy_ledger import NodeCheck
from slurm_power.adapters.energy_records import CommandRun, KnownJob
from slurm_power.monitoring.energy_account import Attempt, EnergyAccount, JobEnergy, Spent


@dataclass(frozen=True, slots=True)
class Found:
    """All that was found for a period."""

    since_wall_s: float
    until_wall_s: float
    account: EnergyAccount
    known: Mapping[int, KnownJob]
    runs: Sequence[CommandRun]
    check: NodeCheck | None
    currency: str | None
    pue: float


@dataclass(frozen=True, slots=True)
class JobRow:
    """One job, or the sum over a user's or an account's. None: not one value, or not known."""

    job_id: int | None
    user: str
    uid: int | None
    account: str
    name: str
    jobs: int
    attempts: tuple[Attempt, ...]
    runs: tuple[CommandRun, ...]
    spent: Spent
    ran_s: float

    @property
    def mean_watts(self) -> float | None:
        return self.spent.joules / self.ran_s if self.ran_s > 0 else None

    @property
    def gpus(self) -> int:
        return max((len(attempt.uuids) for attempt in self.attempts), default=0)


def job_rows(found: Found) -> list[JobRow]:
    """In order of their first begin."""
    jobs = sorted(found.account.jobs.values(), key=lambda job: (job.attempts[0].begin_wall_s, job.holder.job_id))
    return [_row(job, found) for job in jobs]


def grouped(rows: Sequence[JobRow], by: str) -> list[JobRow]:
    """By "user" or "account", the largest first."""
    groups: dict[str, list[JobRow]] = {}
    for row in rows:
        groups.setdefault(row.user if by == "user" else row.account, []).append(row)
    sums = [
        JobRow(
            job_id=None,
            user=name if by == "user" else "",
            uid=group[0].uid if by == "user" else None,
            account=name if by == "account" else "",
            name="",
            jobs=len(group),
            attempts=(),
            runs=(),
            spent=sum((row.spent for row in group), Spent()),
            ran_s=sum(row.ran_s for row in group),
        )
        for name, group in groups.items()
    ]
    return sorted(sums, key=lambda row: -row.spent.joules)


def as_json(found: Found, rows: Sequence[JobRow]) -> dict[str, Any]:
    account = found.account
    check = found.check
    return {
        "since_wall_s": found.since_wall_s,
        "until_wall_s": found.until_wall_s,
        "currency": found.currency,
        "pue": found.pue,
        "jobs": [
            {
                **_flat(row),
                "attempts": [_attempt(attempt) for attempt in row.attempts],
                "runs": [asdict(run) for run in row.runs],
            }
            for row in rows
        ],
        "idle": _spent(account.idle),
        "apart": {"cpu_joules": account.apart.cpu_joules, "rest_joules": account.apart.rest_joules},
        "total_joules": account.total_joules,
        "nodes_drew": None if check is None else {"joules": check.drawn_joules, "known_node_s": check.known_s},
    }


def write_csv(file: TextIO, rows: Sequence[JobRow]) -> None:
    """A text that a spreadsheet would take for a formula gets an apostrophe in front."""
    names = list(_flat(_NOBODY))
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*names, "attempts"])
    for row in rows:
        values = [("" if value is None else value) for value in _flat(row).values()]
        cells = [f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t" else value for value in values]
        writer.writerow([*cells, len(row.attempts)])


_NOBODY = JobRow(None, "", None, "", "", 0, (), (), Spent(), 0.0)


def _row(job: JobEnergy, found: Found) -> JobRow:
    known = found.known.get(job.holder.job_id, KnownJob())
    return JobRow(
        job_id=job.holder.job_id,
        user=known.user_name or _user_of(job.holder.uid),
        uid=job.holder.uid,
        account=known.account,
        name=known.name,
        jobs=1,
        attempts=job.attempts,
        runs=tuple(run for run in found.runs if run.job_id == job.holder.job_id),
        spent=job.spent,
        ran_s=job.ran_s,
    )


def _user_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _flat(row: JobRow) -> dict[str, Any]:
    return {
        "job_id": row.job_id,
        "user": row.user,
        "uid": row.uid,
        "account": row.account,
        "name": row.name,
        "jobs": row.jobs,
        "began_wall_s": row.attempts[0].begin_wall_s if row.attempts else None,
        "ended_wall_s": row.attempts[-1].end_wall_s if row.attempts else None,
        "ran_s": row.ran_s,
        "gpus": row.gpus or None,
        **_spent(row.spent),
        "mean_watts": row.mean_watts,
    }


def _spent(spent: Spent) -> dict[str, Any]:
    return {
        "joules": spent.joules,
        "gpu_counted_joules": spent.gpu.counted_joules,
        "gpu_integrated_joules": spent.gpu.integrated_joules,
        "gpu_unknown_s": spent.gpu.unknown_s,
        "cpu_joules": spent.beside.cpu_joules,
        "rest_joules": spent.beside.rest_joules,
        "money": spent.worth.money,
        "carbon_grams": spent.worth.carbon_grams,
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "began_wall_s": attempt.begin_wall_s,
        "ended_wall_s": attempt.end_wall_s,
        "gpus": len(attempt.uuids),
        "nodes": sorted(attempt.nodes),
        **_spent(attempt.spent),
        "mean_watts": attempt.mean_watts,
        "gaps": [asdict(gap) for gap in attempt.gaps],
    }
