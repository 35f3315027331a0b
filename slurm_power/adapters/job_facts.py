"""What Slurm knows of jobs that a report names: user, account, name, when and where.

From sacct; without accounting, what slurmctld still holds. A job that nobody remembers is simply not there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from slurm_power.adapters.run_command import Run, run_command
from slurm_power.adapters.slurm_config import SlurmConfig
from slurm_power.errors import ConfigError, Unavailable

_FIELDS = 7
_SACCT_FORMAT = "JobIDRaw,User,Account,Submit,End,NodeList,JobName"  # the name is last: it may hold any character
_SQUEUE_FORMAT = "%A|%u|%a|%V|%e|%N|%j"
_CHANGES_OUTPUT = ("SACCT_", "SQUEUE_", "SLURM_TIME_FORMAT")
_NO_NODES = ("", "None assigned", "(null)", "N/A")


@dataclass(frozen=True, slots=True)
class JobFacts:
    job_id: int
    user: str
    account: str
    job_name: str
    submit_wall_s: float | None
    end_wall_s: float | None
    """None: not known. Of a running job slurmctld tells when its time is up."""

    nodes: tuple[str, ...]
    """Where it ran, in all its attempts that Slurm still knows."""


class SlurmJobFacts:
    def __init__(self, config: SlurmConfig, *, run: Run = run_command) -> None:
        self._config = config
        self._run = run

    def job(self, job_id: int) -> JobFacts | None:
        """None: Slurm does not know it, or nobody can be asked."""
        found = [one for one in self._rows_of_job(str(job_id)) if one.job_id == job_id]
        if not found:
            return None
        last = found[-1]
        nodes = tuple(dict.fromkeys(node for one in found for node in one.nodes))
        submits = [one.submit_wall_s for one in found if one.submit_wall_s is not None]
        return JobFacts(
            job_id, last.user, last.account, last.job_name, min(submits, default=None), last.end_wall_s, nodes
        )

    def of_account(self, account: str, *, since_wall_s: float, until_wall_s: float) -> list[JobFacts]:
        """Jobs that ran in a period. Raise Unavailable without accounting: only it knows."""
        when = [f"--starttime={int(since_wall_s)}", f"--endtime={int(until_wall_s) + 1}"]
        return self._sacct(["--allusers", f"--accounts={account}", *when])

    def of_period(self, *, since_wall_s: float, until_wall_s: float) -> list[JobFacts]:
        """All jobs that ran in a period. Raise Unavailable without accounting: only it knows."""
        return self._sacct(["--allusers", f"--starttime={int(since_wall_s)}", f"--endtime={int(until_wall_s) + 1}"])

    def _rows_of_job(self, job_id: str) -> list[JobFacts]:
        try:
            found = self._sacct([f"--jobs={job_id}"])
        except Unavailable:
            found = []
        try:
            return found or self._squeue(job_id)
        except Unavailable:
            return []

    def _sacct(self, which: Sequence[str]) -> list[JobFacts]:
        argv = ["sacct", "--noheader", "--parsable2", "--allocations", "--duplicates", f"--format={_SACCT_FORMAT}"]
        return self._parsed(self._ask([*argv, *which]))

    def _squeue(self, job_id: str) -> list[JobFacts]:
        argv = ["squeue", "--noheader", "--states=all", f"--jobs={job_id}", f"--format={_SQUEUE_FORMAT}"]
        return self._parsed(self._ask(argv))

    def _parsed(self, answer: str) -> list[JobFacts]:
        rows = [line.split("|", _FIELDS - 1) for line in answer.splitlines()]
        return [self._facts(row) for row in rows if len(row) == _FIELDS and row[0].isdigit()]

    def _facts(self, row: Sequence[str]) -> JobFacts:
        job_id, user, account, submit, end, nodes, name = row
        return JobFacts(int(job_id), user, account, name, _seconds(submit), _seconds(end), tuple(self._hosts(nodes)))

    def _hosts(self, nodes: str) -> Iterable[str]:
        if nodes.strip() in _NO_NODES:
            return []
        if "[" not in nodes:
            return nodes.split(",")
        return self._ask(["scontrol", "show", "hostnames", nodes]).split()

    def _ask(self, argv: Sequence[str]) -> str:
        try:
            result = self._run(argv, timeout_s=self._config.timeout_s, env=self._environment())
        except ConfigError as cause:  # Slurm's commands are not on this machine
            raise Unavailable(str(cause)) from cause
        if result.exit_code != 0:
            raise Unavailable(f"{argv[0]}: {result.words()[:200]}")
        return result.output

    def _environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(_CHANGES_OUTPUT)}
        conf = {} if self._config.slurm_conf is None else {"SLURM_CONF": str(self._config.slurm_conf)}
        return {**kept, **conf, "SLURM_TIME_FORMAT": "%s", "LC_ALL": "C"}


def _seconds(text: str) -> float | None:
    """Seconds since the epoch; None for Unknown, N/A and what is not reached yet."""
    return float(text) if text.isdigit() and int(text) > 0 else None
