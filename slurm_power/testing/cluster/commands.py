"""Slurm's own commands against one development cluster, for tests, demo and status."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from slurm_power.errors import ConfigError, DeviceRefused, Unavailable
from slurm_power.testing.cluster.emulated_gpus import nvml_directory
from slurm_power.testing.cluster.layout import ClusterLayout
from slurm_power.testing.cluster.requirements import program
from slurm_power.testing.processes import MARK, wait_for

_TIMEOUT_S = 30.0


class SlurmCommands:
    def __init__(self, layout: ClusterLayout) -> None:
        self.layout = layout

    def environment(self) -> dict[str, str]:
        """This process' environment, turned to the cluster: for subprocesses that call Slurm or NVML.
        Slurm's own variables (we may stand inside another cluster's job) are left out."""
        foreign = ("SLURM", "SBATCH", "SPANK", MARK)
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
        return {
            **inherited,
            "SLURM_CONF": str(self.layout.slurm_conf),
            "LD_LIBRARY_PATH": _prefixed(nvml_directory(), os.environ.get("LD_LIBRARY_PATH")),
            "PATH": _prefixed(Path(sys.executable).parent, os.environ.get("PATH")),
        }

    def run(
        self,
        *argv: str,
        user: str | None = None,
        script: str = "",
        environment: Mapping[str, str] | None = None,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command, as another user if named, with `script` on its input.
        Raise DeviceRefused with its own words when it fails and `check` is on, Unavailable when it hangs."""
        account = None if user is None else _account(user)
        try:
            done = subprocess.run(
                [program(argv[0]), *argv[1:]],
                input=script,
                env={**self.environment(), **(environment or {})},
                cwd=self.layout.jobs,
                user=None if account is None else account.pw_uid,
                group=None if account is None else account.pw_gid,
                extra_groups=None if account is None else [],
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as cause:
            raise Unavailable(f"{argv[0]} did not answer within {_TIMEOUT_S:.0f} s") from cause
        if check and done.returncode != 0:
            raise DeviceRefused(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")
        return done

    def sbatch(
        self,
        *options: str,
        script: str,
        user: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> int:
        """Submit a batch job (`script` without its #! line is fine) and return its id. Output goes to
        jobs/slurm-<id>.out. Raise DeviceRefused with sbatch's words when it is refused."""
        body = script if script.startswith("#!") else f"#!/bin/bash\n{script}\n"
        done = self.run("sbatch", "--parsable", *options, user=user, script=body, environment=environment)
        return int(done.stdout.split(";")[0])

    def job_output(self, job_id: int) -> str:
        return (self.layout.jobs / f"slurm-{job_id}.out").read_text()

    def _tail_of_output(self, job_id: int) -> str:
        try:
            return f"; it wrote: {self.job_output(job_id)[-500:].strip()!r}"
        except OSError:
            return ""

    def job_facts(self, job_id: int) -> dict[str, str]:
        """What `scontrol show job` says of one job, key by key; empty when Slurm has forgotten it."""
        done = self.run("scontrol", "-o", "-d", "show", "job", str(job_id), check=False)
        words = (word.partition("=") for word in done.stdout.split() if "=" in word)
        return {key: value for key, _, value in words}

    def job_states(self) -> dict[int, str]:
        """State of every job that Slurm still knows, finished ones too."""
        done = self.run("squeue", "--noheader", "--states=all", "--format=%A %T")
        return {int(job_id): state for job_id, state in (line.split() for line in done.stdout.splitlines())}

    def node_states(self) -> dict[str, str]:
        done = self.run("sinfo", "--noheader", "--Node", "--format=%N %T")
        return dict(line.split() for line in done.stdout.splitlines())

    def wait_for_job(self, job_id: int, *states: str, timeout_s: float = 30.0) -> dict[str, str]:
        """Wait until the job is in one of `states` and return its facts.
        Raise Unavailable with what it is instead when the time is over."""
        facts: dict[str, str] = {}

        def reached() -> bool:
            nonlocal facts
            facts = self.job_facts(job_id)
            return facts.get("JobState") in states

        if not wait_for(reached, timeout_s=timeout_s, poll_s=0.2):
            was = f"{facts.get('JobState')} ({facts.get('Reason')})"
            wrote = self._tail_of_output(job_id)
            raise Unavailable(f"job {job_id} is {was}, not {' or '.join(states)}, after {timeout_s:.0f} s{wrote}")
        return facts

    def wait_for_nodes(self, *states: str, timeout_s: float, node_names: Sequence[str] | None = None) -> None:
        """Wait until all nodes (or those named) are in one of `states`; raise Unavailable as above."""
        seen: dict[str, str] = {}

        def reached() -> bool:
            nonlocal seen
            try:
                seen = self.node_states()
            except (DeviceRefused, Unavailable):
                return False  # slurmctld is still starting
            wanted = node_names if node_names is not None else list(seen)
            return bool(wanted) and all(seen.get(name) in states for name in wanted)

        if not wait_for(reached, timeout_s=timeout_s, poll_s=0.2):
            raise Unavailable(f"nodes are {seen}, not all {' or '.join(states)}, after {timeout_s:.0f} s")

    def cancel_everything(self, *, timeout_s: float = 30.0) -> None:
        """Cancel all jobs and wait until they have ended; delete all reservations."""
        living = [str(job_id) for job_id, state in self.job_states().items() if state in _LIVING]
        if living:
            self.run("scancel", *living, check=False)
        wait_for(lambda: not any(state in _LIVING for state in self.job_states().values()), timeout_s=timeout_s)
        for name in self.reservation_names():
            self.run("scontrol", "delete", f"ReservationName={name}", check=False)

    def reservation_names(self) -> list[str]:
        done = self.run("scontrol", "-o", "show", "reservation", check=False)
        words = (line.split()[0] for line in done.stdout.splitlines() if line.startswith("ReservationName="))
        return [word.removeprefix("ReservationName=") for word in words]


_LIVING = {"PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "REQUEUED", "STOPPED"}


def _account(user: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(user)
    except KeyError as cause:
        raise ConfigError(f"user = {user}: there is no such user on this machine") from cause


def _prefixed(first: Path, rest: str | None) -> str:
    return f"{first}:{rest}" if rest else str(first)
