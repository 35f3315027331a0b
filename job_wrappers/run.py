"""slurm-power-run -- COMMAND: runs a command in a job and says what its GPUs drew. Never fails the job itself.

Every stage that can be missing (agent, NVML, energy counter) costs one warning line, not the job.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

from job_wrappers.agent_client import AgentClient, job_id_of
from job_wrappers.child import NOT_EXECUTABLE, NOT_FOUND, run_child
from job_wrappers.energy_counters import read_energy_joules, used_joules
from slurm_power.errors import SlurmPowerError
from slurm_power.units import kwh_from_joules

PROGRAM = "slurm-power-run"
UUIDS_VARIABLE = "SLURM_POWER_GPU_UUIDS"
"""Set for the command: UUIDs of the job's GPUs on this node, separated by commas."""


class JobRun:
    """One run of one command. Its first trouble is said, the rest would only repeat it."""

    def __init__(self) -> None:
        self._warned = False
        self._agent = AgentClient.from_environment()
        self._job_id: int | None = None  # None: there is nobody to send points to
        self.uuids: tuple[str, ...] = ()
        self._before: dict[str, float] = {}
        self._started_s = time.monotonic()

    def begin(self) -> None:
        try:
            job_id = job_id_of()
            self.uuids = self._agent.my_gpus(job_id)
            self._job_id = job_id
        except SlurmPowerError as error:
            self._warn(error)
        try:
            self._before = read_energy_joules(self.uuids) if self.uuids else {}
        except SlurmPowerError as error:
            self._warn(error)
        self._started_s = time.monotonic()
        self._send({"event": "start", "gpus": len(self.uuids)})

    def end(self, exit_code: int) -> None:
        duration_s = time.monotonic() - self._started_s
        energy_joules = self._energy_joules()
        fields: dict[str, object] = {
            "event": "end",
            "gpus": len(self.uuids),
            "exit_code": exit_code,
            "duration_s": duration_s,
        }
        step_id = os.environ.get("SLURM_STEP_ID", "")
        if step_id.isdigit():
            fields["step_id"] = int(step_id)
        if energy_joules is not None:
            fields["energy_joules"] = energy_joules
            fields["energy_kwh"] = kwh_from_joules(energy_joules)
            if duration_s > 0:
                fields["mean_watts"] = energy_joules / duration_s
        self._send(fields)
        _say(summary_line(len(self.uuids), duration_s=duration_s, energy_joules=energy_joules, exit_code=exit_code))

    def _energy_joules(self) -> float | None:
        """None: unknown, which is not zero."""
        if not self._before:
            return None
        try:
            return used_joules(self._before, read_energy_joules(self.uuids))
        except SlurmPowerError as error:
            self._warn(error)
            return None

    def _send(self, fields: dict[str, object]) -> None:
        if self._job_id is None:
            return
        point = {"measurement": "job_run", "wall_s": time.time(), "fields": fields, "tags": {}}
        try:
            self._agent.send_points(self._job_id, [point])
        except SlurmPowerError as error:
            self._job_id = None
            self._warn(error)

    def _warn(self, error: SlurmPowerError) -> None:
        if not self._warned:
            _say(f"warning: the command runs without full records: {error}")
        self._warned = True


def summary_line(gpus: int, *, duration_s: float, energy_joules: float | None, exit_code: int) -> str:
    """Units for people: kWh beside joules."""
    if energy_joules is None:
        energy = "energy unknown"
    else:
        mean = f", mean {energy_joules / duration_s:.1f} W" if duration_s > 0 else ""
        energy = f"{energy_joules:.0f} J ({kwh_from_joules(energy_joules):.6f} kWh){mean}"
    return f"{gpus} GPUs, {duration_s:.1f} s, {energy}, exit code {exit_code}"


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{PROGRAM}: {message}; usage: {PROGRAM} -- COMMAND [ARGUMENT...]\n")


def parse_command(arguments: Sequence[str]) -> list[str]:
    parser = _OneLineParser(prog=PROGRAM, description=__doc__, allow_abbrev=False)
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what to run, after --")
    command: list[str] = parser.parse_args(arguments).command
    if command and command[0] == "--":
        command = command[1:]
    if not command:
        parser.error("no command given")
    if command[0].startswith("-"):
        parser.error(f"unknown option {command[0]}")
    return command


def main(arguments: Sequence[str] | None = None) -> None:
    sys.exit(run(parse_command(sys.argv[1:] if arguments is None else arguments)))


def run(command: Sequence[str]) -> int:
    """The command's own exit code; 127 and 126 as a shell's when it cannot be started."""
    job = JobRun()
    job.begin()
    environment = dict(os.environ)
    if job.uuids:
        environment[UUIDS_VARIABLE] = ",".join(job.uuids)
    try:
        exit_code = run_child(command, env=environment)
    except OSError as error:
        _say(f"{command[0]}: {error.strerror}")
        exit_code = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
    job.end(exit_code)
    return exit_code


def _say(line: str) -> None:
    """A closed stderr is no reason to fail a job."""
    try:
        print(f"{PROGRAM}: {line}", file=sys.stderr, flush=True)
    except (OSError, ValueError):
        sys.stderr = None


if __name__ == "__main__":
    main()
