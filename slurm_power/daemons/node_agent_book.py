"""What the agent must remember over a crash: loans, the jobs that hold GPUs and a clock nobody sets, in one journal."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from slurm_power.errors import Unavailable
from slurm_power.gpu.allocation import Allocation
from slurm_power.gpu.borrowing import Knob, Loan, loan_record, read_loans
from slurm_power.gpu.job_table import job_records, read_jobs
from slurm_power.ports.journal import Journal, Record

log = logging.getLogger(__name__)


class AgentBook:
    def __init__(self, journal: Journal, *, boot_id: str) -> None:
        self._journal = journal
        self._boot_id = boot_id
        self._behind = False  # the disk holds an older state: at worst a value is given back twice
        self.loans: dict[tuple[str, Knob], Loan] = {}
        self.jobs: dict[int, Allocation] = {}
        self._clock_ahead_s: float | None = None

    @property
    def boot_id(self) -> str:
        return self._boot_id

    def load(self) -> None:
        """Raise Unavailable when the journal cannot be read: then nobody knows what is still borrowed."""
        records = self._journal.load()
        loans, bad_loans = read_loans(records, boot_id=self._boot_id)
        self.jobs, bad_jobs = read_jobs(records, boot_id=self._boot_id)
        self.loans = {(loan.uuid, loan.knob): loan for loan in loans}
        self._clock_ahead_s = _read_clock(records, boot_id=self._boot_id)
        for line in (*bad_loans, *bad_jobs):
            log.error("%s", line)

    def clock_ahead_s(self, now_ahead_s: float) -> float:
        """How far the wall clock was ahead of the monotonic one when an agent first ran since the node's boot: the
        same for every agent, whoever sets the wall clock."""
        if self._clock_ahead_s is None:
            self._clock_ahead_s = now_ahead_s
            self.save()
        return self._clock_ahead_s

    def lend(self, loans: list[Loan]) -> None:
        """On disk before this returns. Raise Unavailable, and lend nothing, when the disk refuses."""
        before = dict(self.loans)
        self.loans.update({(loan.uuid, loan.knob): loan for loan in loans})
        try:
            self._write()
        except Unavailable:
            self.loans = before
            raise

    def strike_out(self, loans: list[tuple[str, Knob]]) -> None:
        for key in loans:
            self.loans.pop(key, None)
        self.save()

    def save(self) -> None:
        """Write what is known; a full disk is said once and tried again by `catch_up`."""
        try:
            self._write()
        except Unavailable as error:
            if not self._behind:
                log.error("%s", error)
            self._behind = True

    def catch_up(self) -> None:
        if self._behind:
            self.save()

    def _write(self) -> None:
        records: list[Record] = [loan_record(loan) for loan in self.loans.values()]
        for job in self.jobs.values():
            records += job_records(job, boot_id=self._boot_id)
        if self._clock_ahead_s is not None:
            records.append({"kind": "clock", "boot_id": self._boot_id, "ahead_s": self._clock_ahead_s})
        self._journal.write(records)
        self._behind = False


def _read_clock(records: Iterable[Record], *, boot_id: str) -> float | None:
    for record in records:
        ahead_s = record.get("ahead_s")
        if record.get("kind") == "clock" and record.get("boot_id") == boot_id and isinstance(ahead_s, (int, float)):
            return ahead_s
    return None
