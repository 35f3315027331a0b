"""What sacct and sacctmgr are asked; the commands here are stand-ins."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from slurm_power.adapters.energy_write_back import EnergyWriteBack, with_energy
from slurm_power.adapters.run_command import CommandResult
from slurm_power.adapters.slurm_config import SlurmConfig
from slurm_power.errors import DeviceRefused, Unavailable

HOOK = Path(__file__).resolve().parents[2] / "etc" / "epilog.d" / "80-slurm-power-energy"


class Accounting:
    def __init__(self, version: str, comment: str = "", refuses: bool = False) -> None:
        self.version, self.comment, self.refuses = version, comment, refuses
        self.asked: list[list[str]] = []

    def __call__(self, argv: Sequence[str], *, timeout_s: float, env: Mapping[str, str]) -> CommandResult:
        self.asked.append(list(argv))
        if argv[-1] == "--version":
            return CommandResult(0, f"slurm-wlm {self.version}\n", "")
        if argv[0] == "sacct":
            return CommandResult(0, f"{self.comment}\n", "")
        return CommandResult(1, "", "You are not an administrator") if self.refuses else CommandResult(0, "", "")


def written(accounting: Accounting) -> str:
    assert accounting.asked[-1][:6] == ["sacctmgr", "--immediate", "modify", "job", "where", "jobid=7"]
    return accounting.asked[-1][-1]


def test_from_25_11_on_energy_is_written_as_tres() -> None:
    accounting = Accounting("25.11.7")
    EnergyWriteBack(SlurmConfig(), run=accounting).write(7, 123_456.7, to="auto")
    assert written(accounting) == "TRES=energy=123457"


def test_before_into_the_admin_comment_beside_what_others_wrote() -> None:
    accounting = Accounting("22.05.8", "JS1:abc slurm-power-energy:joules=5 slurm-power:class=flexible")
    EnergyWriteBack(SlurmConfig(), run=accounting).write(7, 9.0, to="auto")
    assert written(accounting) == "AdminComment=JS1:abc slurm-power:class=flexible slurm-power-energy:joules=9"


def test_a_dry_run_writes_nothing() -> None:
    accounting = Accounting("25.11.7")
    assert EnergyWriteBack(SlurmConfig(), run=accounting).write(7, 9.0, to="auto", dry_run=True) == "TRES=energy=9"
    assert [argv[-1] for argv in accounting.asked] == ["--version"]


def test_a_refusal_is_told_in_slurms_words() -> None:
    with pytest.raises(DeviceRefused, match="job 7: sacctmgr: You are not an administrator"):
        EnergyWriteBack(SlurmConfig(), run=Accounting("25.11.7", refuses=True)).write(7, 9.0, to="tres")


def test_a_users_comment_cannot_smuggle_control_characters() -> None:
    with pytest.raises(DeviceRefused):
        with_energy("evil\x1b[2J", 1.0)


def test_without_sacctmgr_there_is_nothing_to_write_to() -> None:
    def no_such_program(argv: Sequence[str], *, timeout_s: float, env: Mapping[str, str]) -> CommandResult:
        raise Unavailable("no sacctmgr")

    with pytest.raises(Unavailable):
        EnergyWriteBack(SlurmConfig(), run=no_such_program).write(7, 1.0, to="auto")


@pytest.mark.parametrize("job_id", ["", "7; touch pwned", "$(id)"])
def test_the_hook_lets_no_strange_job_id_near_a_shell(job_id: str, tmp_path: Path) -> None:
    stand_in = tmp_path / "slurm-power"
    stand_in.write_text(f"#!/bin/sh\ntouch {tmp_path}/called\n")
    stand_in.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": job_id}
    done = subprocess.run([HOOK], env=environment, cwd=tmp_path, timeout=20, check=False)
    assert done.returncode == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["slurm-power"]


def test_the_hook_does_nothing_where_the_product_is_not_installed(tmp_path: Path) -> None:
    done = subprocess.run([HOOK], env={"PATH": "/usr/bin:/bin", "SLURM_JOB_ID": "7"}, timeout=20, check=False)
    assert done.returncode == 0
