"""SlurmClient through Slurm's own commands: any Slurm from 22.05 on, no library to match.

One `squeue` for all jobs, one `sinfo` for all nodes. Arguments go as a list, never through a shell.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence

from slurm_power.adapters import slurm_command_parse as parse
from slurm_power.adapters.run_command import CommandResult, Run, run_command
from slurm_power.adapters.slurm_config import SlurmConfig
from slurm_power.adapters.slurm_text import checked_comment, checked_name, licenses_text
from slurm_power.errors import DeviceRefused, Unavailable
from slurm_power.relocation.jobs import Job, LicensePool, LicenseReservation, Node

_NO_ANSWER = re.compile(
    "Unable to contact slurm controller|Connection refused|Connection timed out|Socket timed out"
    "|Zero Bytes were transmitted|Protocol authentication error|Unable to establish|Unable to process configuration"
    "|authentication service is down|Munge encode failed|Communication connection failure",
    re.IGNORECASE,
)
_GONE = ("Requested reservation is invalid", "Reservation is invalid", "not found")
_STARTED = "Reservation already started"

# LICENSE_ONLY (22.05 shows it as ANY_NODES): licences without nodes. IGNORE_JOBS: running jobs may hold them still.
_RESERVATION_FLAGS = "Flags=LICENSE_ONLY,IGNORE_JOBS"


class CommandSlurmClient:
    def __init__(
        self,
        config: SlurmConfig,
        *,
        run: Run = run_command,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._run = run
        self._wall_s = wall_s
        self._names: Mapping[int, str] = {}

    def version(self) -> str:
        return parse.parse_version(self._ask("scontrol", "show", "config"))

    def jobs(self) -> Sequence[Job]:
        answer = self._ask("squeue", "--all", "--states=all", "--json")
        jobs = parse.parse_jobs(answer)
        self._names = parse.parse_array_names(answer)
        return jobs

    def nodes(self) -> Sequence[Node]:
        return parse.parse_nodes(self._ask("sinfo", "--all", "--json"))

    def license_pools(self) -> Mapping[str, LicensePool]:
        return parse.parse_license_pools(self._ask("scontrol", "--oneliner", "show", "licenses"))

    def license_reservations(self) -> Sequence[LicenseReservation]:
        return parse.parse_license_reservations(self._ask("scontrol", "--oneliner", "show", "reservation"))

    def create_reservation(self, reservation: LicenseReservation) -> None:
        self._do(
            "scontrol",
            "create",
            "reservation",
            *_reservation_words(reservation),
            "Users=root",
            "NodeCnt=0",
            _RESERVATION_FLAGS,
            f"PartitionName={self._config.partition}",
        )

    def update_reservation(self, reservation: LicenseReservation) -> None:
        words = _reservation_words(reservation)
        try:
            self._do("scontrol", "update", *words)
        except DeviceRefused as refusal:
            # The start of a reservation that has begun is past changing; asking for it to have begun is no change.
            if _STARTED not in str(refusal) or reservation.start_wall_s > self._wall_s():
                raise
            self._do("scontrol", "update", *(word for word in words if not word.startswith("StartTime=")))

    def delete_reservation(self, name: str) -> None:
        try:
            self._do("scontrol", "delete", f"ReservationName={checked_name(name)}")
        except DeviceRefused as refusal:
            if not any(words in str(refusal) for words in _GONE):
                raise

    def update_job(
        self,
        job_id: int,
        *,
        begin_wall_s: float | None = None,
        licenses: Mapping[str, int] | None = None,
        admin_comment: str | None = None,
    ) -> None:
        changes = []
        if begin_wall_s is not None:
            changes.append(f"StartTime={self._start_word(begin_wall_s)}")
        if licenses is not None:
            changes.append(f"Licenses={licenses_text(licenses)}")
        if admin_comment is not None:
            changes.append(f"AdminComment={checked_comment(admin_comment)}")
        if changes:
            self._do("scontrol", "update", f"JobId={self._name(job_id)}", *changes)

    def requeue(self, job_id: int) -> None:
        self._do("scontrol", "requeue", self._name(job_id))

    def cancel(self, job_id: int) -> None:
        self._do("scancel", self._name(job_id))

    def _name(self, job_id: int) -> str:
        """The record that `jobs` called so; a bare id would reach every task of an array."""
        return self._names.get(job_id, str(job_id))

    def _start_word(self, begin_wall_s: float) -> str:
        return "now" if begin_wall_s <= self._wall_s() else _time_word(begin_wall_s)

    def _ask(self, *argv: str) -> str:
        result = self._call(argv)
        if result.exit_code != 0:
            raise Unavailable(f"{argv[0]}: {result.words()}")
        return result.output

    def _do(self, *argv: str) -> None:
        result = self._call(argv)
        if result.exit_code == 0:
            return
        if _NO_ANSWER.search(result.words()):
            raise Unavailable(f"{argv[0]}: {result.words()}")
        raise DeviceRefused(f"{' '.join(argv[:3])}: {result.words()}")

    def _call(self, argv: Sequence[str]) -> CommandResult:
        return self._run(argv, timeout_s=self._config.timeout_s, env=self._environment())

    def _environment(self) -> dict[str, str]:
        """Ours without the variables by which a shell changes what Slurm's commands print."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("SQUEUE_", "SINFO_", "SLURM_"))}
        inherited = os.environ.get("SLURM_CONF")
        conf = str(self._config.slurm_conf) if self._config.slurm_conf is not None else inherited
        # Epoch seconds: local time is ambiguous for an hour each autumn.
        return {**kept, **({"SLURM_CONF": conf} if conf else {}), "SLURM_TIME_FORMAT": "%s", "LC_ALL": "C"}


def _reservation_words(reservation: LicenseReservation) -> list[str]:
    return [
        f"ReservationName={checked_name(reservation.name)}",
        f"StartTime={_time_word(reservation.start_wall_s)}",
        f"EndTime={_time_word(reservation.end_wall_s)}",
        f"Licenses={licenses_text(reservation.licenses)}",
    ]


def _time_word(wall_s: float) -> str:
    return f"uts{wall_s:.0f}"
