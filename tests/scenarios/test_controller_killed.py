"""kill -9 of the controller in the middle of a peak: everything it asked for ends by itself, jobs go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from slurm_power.relocation.job_mark import parse_mark
from slurm_power.testing.processes import wait_for

if TYPE_CHECKING:
    from tests.scenarios.conftest import ScenarioSite

SAFE_CAP_WATTS = 400.0
LOAD = "exec slurm-power-emulated-load --work-s"
THEIR_COMMENT = "billing:project-7"


@pytest.fixture
def victim(site: ScenarioSite) -> int:
    """A flexible job on all GPUs of n1, with another tool's words in its AdminComment."""
    job_id = site.cluster.sbatch(
        "--gpus-per-node=4", "--nodelist=n1", "--time=10", "--power-class=flexible", "--power-max-slowdown=0.6",
        script=f"{LOAD} 400",
    )  # fmt: skip
    site.cluster.wait_for_job(job_id, "RUNNING")
    mark = site.job(job_id).admin_comment
    site.cluster.run("scontrol", "update", f"JobId={job_id}", f"AdminComment={THEIR_COMMENT} {mark}")
    return job_id


def discharge_watts(site: ScenarioSite) -> float:
    return site.control.do("truth")["battery_discharge_watts"]


def test_a_killed_controller_leaves_a_running_cluster_and_a_new_one_undoes_only_its_own(
    site: ScenarioSite, victim: int
) -> None:
    slurm = site.cluster
    slurm.run(
        "scontrol", "create", "reservation", "ReservationName=maintenance", "StartTime=now+1hour", "Duration=10",
        "Users=root", "Licenses=watts:500", "NodeCnt=0", "Flags=ANY_NODES,IGNORE_JOBS", "PartitionName=main",
    )  # fmt: skip
    theirs = slurm.sbatch("--gpus=1", "--begin=now+1hour", "--time=5", script="true")
    their_begin_wall_s = site.job(theirs).begin_wall_s

    site.make_peak()
    assert wait_for(lambda: max(site.caps("n1")) < SAFE_CAP_WATTS, timeout_s=30, poll_s=0.2), site.api("plan")
    assert wait_for(lambda: discharge_watts(site) > 1000, timeout_s=15, poll_s=0.2)
    waiting = slurm.sbatch("--gpus=4", "--time=10", "--power-class=flexible", script=f"{LOAD} 1")
    assert wait_for(lambda: slurm.job_facts(waiting).get("Reason") == "Licenses", timeout_s=20, poll_s=0.2)
    assert site.our_reservations()
    assert parse_mark(site.job(victim).admin_comment).capped_watts is not None

    site.kill("powerd")

    firm = slurm.sbatch("--gpus=1", "--nodelist=n2", "--time=1", "--power-class=firm", script=f"{LOAD} 1")
    assert wait_for(lambda: site.caps("n1") == [SAFE_CAP_WATTS] * 4, timeout_s=15, poll_s=0.2), site.caps("n1")
    assert wait_for(lambda: discharge_watts(site) == 0, timeout_s=10, poll_s=0.2), discharge_watts(site)
    slurm.wait_for_job(firm, "COMPLETED", timeout_s=20)
    slurm.wait_for_job(waiting, "COMPLETED", timeout_s=60)
    assert wait_for(lambda: not site.our_reservations(), timeout_s=40, poll_s=0.2), "they end by themselves"
    assert slurm.job_facts(victim)["JobState"] == "RUNNING"

    site.services.start_controller(site.config_file)
    assert wait_for(lambda: max(site.caps("n1")) < SAFE_CAP_WATTS, timeout_s=30, poll_s=0.2), "the peak goes on"
    site.make_peak(extra_watts=-8_000.0)  # now the whole cluster at full draw would stay below the target
    assert wait_for(lambda: site.caps("n1") == [700.0] * 4, timeout_s=40, poll_s=0.2), site.caps("n1")
    assert wait_for(lambda: not site.our_reservations(), timeout_s=20, poll_s=0.2)

    comment = site.job(victim).admin_comment
    mark = parse_mark(comment)
    assert comment.startswith(THEIR_COMMENT)
    assert (mark.capped_watts, mark.licenses_before, mark.deferred_until_wall_s) == (None, None, None)
    assert site.job(victim).licenses == {"watts": 4 * 700 + 500}
    assert slurm.reservation_names() == ["maintenance"]
    assert site.job(theirs).begin_wall_s == their_begin_wall_s
