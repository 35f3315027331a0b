"""Writes a finished job's energy into Slurm's accounting, with sacctmgr: slurmctld itself refuses every change of a job
that has ended (tried on 22.05: "Job has already finished"), so without slurmdbd there is nothing to write to.
"""

from __future__ import annotations

import os
import re
from typing import Literal

from slurm_power.adapters.run_command import CommandResult, Run, run_command
from slurm_power.adapters.slurm_config import SlurmConfig
from slurm_power.adapters.slurm_text import checked_comment, release_of
from slurm_power.errors import ConfigError, DeviceRefused, Unavailable

Target = Literal["auto", "tres", "admin-comment", "comment"]

TRES_SINCE = (25, 11)
"""From this release on an administrator may set the TRES of a completed job, once."""

_MARK = re.compile(r"\s*slurm-power-energy:joules=\d+")
_COLUMNS = {"admin-comment": "AdminComment", "comment": "Comment"}


class EnergyWriteBack:
    def __init__(self, config: SlurmConfig, *, run: Run = run_command) -> None:
        self._config = config
        self._run = run

    def write(self, job_id: int, joules: float, *, to: Target, dry_run: bool = False) -> str:
        """What was set, or would be. Raise Unavailable when nobody answers, DeviceRefused when Slurm says no."""
        target = self._chosen(to)
        if target == "tres":
            setting = f"TRES=energy={joules:.0f}"
        else:
            column = _COLUMNS[target]
            setting = f"{column}={with_energy(self._present(job_id, column), joules)}"
        if not dry_run:
            argv = ["sacctmgr", "--immediate", "modify", "job", "where", f"jobid={job_id}", "set", setting]
            result = self._ask(*argv)
            if result.exit_code != 0:
                raise DeviceRefused(f"job {job_id}: sacctmgr: {result.words()[:200]}")
        return setting

    def _chosen(self, to: Target) -> Target:
        if to != "auto":
            return to
        result = self._ask("sacctmgr", "--version")
        if result.exit_code != 0:
            raise Unavailable(f"sacctmgr: {result.words()[:200]}")
        return "tres" if release_of(result.output) >= TRES_SINCE else "admin-comment"

    def _present(self, job_id: int, column: str) -> str:
        """Of its newest attempt. Raise Unavailable without accounting."""
        argv = ["sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={job_id}", f"--format={column}"]
        result = self._ask(*argv)
        if result.exit_code != 0:
            raise Unavailable(f"sacct: {result.words()[:200]}")
        lines = result.output.splitlines()
        if not lines:
            raise Unavailable(f"job {job_id}: accounting does not know it yet")
        return lines[-1].strip()

    def _ask(self, *argv: str) -> CommandResult:
        conf = {} if self._config.slurm_conf is None else {"SLURM_CONF": str(self._config.slurm_conf)}
        environment = {**os.environ, **conf, "LC_ALL": "C"}
        try:
            return self._run(list(argv), timeout_s=self._config.timeout_s, env=environment)
        except ConfigError as cause:
            raise Unavailable(str(cause)) from cause


def with_energy(comment: str, joules: float) -> str:
    """The comment with our mark, in place of an older one; what others wrote stays. Raise DeviceRefused when it is too
    long or holds control characters."""
    return checked_comment(f"{_MARK.sub('', comment)} slurm-power-energy:joules={joules:.0f}".strip())
