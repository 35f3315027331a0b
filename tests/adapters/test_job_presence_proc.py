"""Which jobs have processes here, from recorded /proc entries and from one real process."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from slurm_power.adapters.job_presence_proc import ProcJobPresence
from slurm_power.errors import Unavailable
from slurm_power.ports.job_presence import Evidence
from slurm_power.testing.processes import wait_for

ME = os.geteuid()


class Proc:
    """A folder that looks like /proc. Its processes belong to whoever runs the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "self").mkdir()

    def add(self, pid: int, *, title: bytes = b"python\0", **environ: str) -> None:
        process = self.folder / str(pid)
        process.mkdir()
        (process / "cmdline").write_bytes(title)
        (process / "environ").write_bytes(b"".join(f"{k}={v}\0".encode() for k, v in environ.items()))

    def presence(self, *, slurm_conf: str = "", slurm_uid: int = ME) -> ProcJobPresence:
        return ProcJobPresence("n1", proc=self.folder, slurm_uids=frozenset({slurm_uid}), slurm_conf=slurm_conf)


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path)


def test_a_step_daemon_is_evidence(proc: Proc) -> None:
    # As recorded from Slurm 22.05: no SLURMD_NODENAME in the step daemon's environment.
    proc.add(10, title=b"slurmstepd: [123.batch]\0", SLURM_CONF="/etc/slurm.conf")
    assert proc.presence().seen({123: 5, 12: 5}) == {123: Evidence.STEP}


def test_a_task_of_the_jobs_user_is_evidence(proc: Proc) -> None:
    proc.add(10, SLURM_JOB_ID="123", SLURMD_NODENAME="n1")
    assert proc.presence().seen({123: ME}) == {123: Evidence.PROCESS}


def test_somebody_elses_process_is_not(proc: Proc) -> None:
    proc.add(10, SLURM_JOB_ID="123", SLURMD_NODENAME="n1")
    assert proc.presence().seen({123: ME + 1}) == {}


def test_a_user_cannot_pose_as_a_step_daemon(proc: Proc) -> None:
    proc.add(10, title=b"slurmstepd: [123.batch]\0")
    assert proc.presence(slurm_uid=ME + 1).seen({123: ME}) == {}


def test_a_task_on_another_node_of_this_machine_is_not_here(proc: Proc) -> None:
    proc.add(10, SLURM_JOB_ID="123", SLURMD_NODENAME="n2")
    assert proc.presence().seen({123: ME}) == {}


def test_the_same_job_number_of_another_cluster_is_another_job(proc: Proc) -> None:
    proc.add(10, title=b"slurmstepd: [123.batch]\0", SLURM_CONF="/other/slurm.conf")
    proc.add(11, SLURM_JOB_ID="123", SLURMD_NODENAME="n1", SLURM_CONF="/other/slurm.conf")
    assert proc.presence(slurm_conf="/this/slurm.conf").seen({123: ME}) == {}


def test_odd_environments_are_no_evidence(proc: Proc) -> None:
    proc.add(10, SLURM_JOB_ID="123; rm", SLURMD_NODENAME="n1")
    proc.add(11, SLURM_JOB_ID="9" * 5000, SLURMD_NODENAME="n1")
    proc.add(12, title=b"")
    (proc.folder / "13").mkdir()  # it ended while we looked
    assert proc.presence().seen({123: ME}) == {}


def test_nothing_is_concluded_when_proc_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        ProcJobPresence("n1", proc=tmp_path / "absent").seen({1: ME})


def test_a_real_process_is_seen_while_it_lives() -> None:
    environment = {"SLURM_JOB_ID": "4242", "SLURMD_NODENAME": "n1"}
    task = subprocess.Popen(["/bin/sleep", "60"], env=environment)
    try:
        # Popen returns before the kernel has set up the new program's environment.
        assert wait_for(lambda: ProcJobPresence("n1").seen({4242: ME}) == {4242: Evidence.PROCESS}, timeout_s=5.0)
    finally:
        task.kill()
        task.wait()
    assert ProcJobPresence("n1").seen({4242: ME}) == {}
