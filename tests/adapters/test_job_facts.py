"""What Slurm tells of jobs, from scripted answers of its commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from slurm_power.adapters.job_facts import JobFacts, SlurmJobFacts
from slurm_power.adapters.run_command import CommandResult
from slurm_power.adapters.slurm_config import SlurmConfig
from slurm_power.errors import ConfigError, Unavailable


class Slurm:
    """Answers by the program's name; an exception is raised, a number is its exit code."""

    def __init__(self, **answers: str | int | Exception) -> None:
        self.answers = answers
        self.asked: list[Sequence[str]] = []

    def __call__(self, argv: Sequence[str], *, timeout_s: float, env: Mapping[str, str]) -> CommandResult:
        self.asked.append(argv)
        answer = self.answers.get(argv[0], 1)
        if isinstance(answer, Exception):
            raise answer
        return CommandResult(answer, "", "no") if isinstance(answer, int) else CommandResult(0, answer, "")

    def job(self, job_id: int) -> JobFacts | None:
        return SlurmJobFacts(SlurmConfig(), run=self).job(job_id)


def test_all_attempts_of_a_requeued_job_are_one_job() -> None:
    rows = "7|ann|physics|100|200|n1|train\n7|ann|physics|150|400|n[2-3]|train\n8|bob|law|1|2|n9|x\n"
    facts = Slurm(sacct=rows, scontrol="n2\nn3\n").job(7)
    assert facts == JobFacts(7, "ann", "physics", "train", 100.0, 400.0, ("n1", "n2", "n3"))


def test_a_name_may_hold_the_separator_and_anything_else() -> None:
    facts = Slurm(sacct="7|ann|physics|100|Unknown|n1|a|b $(reboot) \x1b[31m\n").job(7)
    assert facts is not None
    assert facts.job_name == "a|b $(reboot) \x1b[31m"
    assert facts.end_wall_s is None


@pytest.mark.parametrize("without", [1, Unavailable("sacct did not answer"), ConfigError("sacct: no such program")])
def test_without_accounting_slurmctld_is_asked(without: int | Exception) -> None:
    facts = Slurm(sacct=without, squeue="7|ann|(null)|100|N/A|n1|train\n").job(7)
    assert facts is not None
    assert (facts.user, facts.nodes, facts.end_wall_s) == ("ann", ("n1",), None)


def test_a_job_that_nobody_remembers_is_none() -> None:
    assert Slurm(sacct="", squeue=1).job(7) is None
    assert Slurm(sacct=ConfigError("no"), squeue=ConfigError("no")).job(7) is None


def test_a_job_that_never_ran_has_no_nodes() -> None:
    facts = Slurm(sacct="7|ann|physics|100|200|None assigned|train\n").job(7)
    assert facts is not None
    assert facts.nodes == ()


def test_an_account_is_asked_of_accounting_alone() -> None:
    slurm = Slurm(sacct="7|ann|physics|100|200|n1|train\n")
    jobs = SlurmJobFacts(SlurmConfig(), run=slurm).of_account("physics", since_wall_s=10.5, until_wall_s=20.5)
    assert [job.job_id for job in jobs] == [7]
    assert {"--accounts=physics", "--starttime=10", "--endtime=21"} <= set(slurm.asked[0])
    with pytest.raises(Unavailable):
        SlurmJobFacts(SlurmConfig(), run=Slurm(sacct=1)).of_account("physics", since_wall_s=1, until_wall_s=2)
