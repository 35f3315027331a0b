"""The power options at submission, through the real sbatch, srun and salloc and a real slurmctld."""

from __future__ import annotations

import pytest

from slurm_power.errors import DeviceRefused
from slurm_power.relocation.job_mark import parse_mark
from slurm_power.relocation.jobs import PowerClass, PowerRequest
from slurm_power.testing.cluster import DevCluster

USER = "nobody"


def mark_of(slurm: DevCluster, job_id: int) -> PowerRequest:
    return parse_mark(slurm.job_facts(job_id)["AdminComment"]).request


@pytest.mark.parametrize("command", ["sbatch", "srun", "salloc"])
@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--gpu-power-cap=900", "--gpu-power-cap=900: must be whole watts from 200 to 700"),
        ("--gpu-power-cap=300kW", "--gpu-power-cap=300kW: must be whole watts from 200 to 700"),
        ("--gpu-clock=99999", "--gpu-clock=99999: must be whole MHz from 345 to 1980"),
        ("--power-class=gold", "--power-class=gold: must be firm, flexible or preemptible"),
        ("--power-max-slowdown=0.95", "--power-max-slowdown=0.95: must be a fraction from 0 to 0.9"),
        ("--power-max-delay=1:99", "--power-max-delay=1:99: must be minutes, mm:ss,"),
    ],
)
def test_a_bad_option_stops_the_submission_and_says_why(
    slurm: DevCluster, command: str, option: str, said: str
) -> None:
    what = "--wrap=true" if command == "sbatch" else "true"
    done = slurm.run(command, option, what, check=False, user=USER)
    assert done.returncode != 0
    assert f"{command}: error: {said}" in done.stderr
    assert slurm.run("squeue", "--noheader").stdout == ""


@pytest.mark.parametrize(
    "variable", ["SLURM_POWER_GPU_CAP", "SLURM_SPANK__SLURM_SPANK_OPTION_slurm_power_gpu_power_cap"]
)
@pytest.mark.parametrize("options", [(), ("--gpu-power-cap=300",)], ids=["alone", "with-a-good-option"])
def test_a_bad_environment_default_stops_the_submission_and_is_named(
    slurm: DevCluster, variable: str, options: tuple[str, ...]
) -> None:
    with pytest.raises(DeviceRefused, match=rf"{variable}=9 \(environment default of --gpu-power-cap\): must be"):
        slurm.sbatch(*options, script="true", environment={variable: "9"})


@pytest.mark.parametrize(
    ("in_script", "in_environment", "on_command_line", "cap_watts"),
    [
        pytest.param("250W", None, None, 250, id="script"),
        pytest.param(None, "350", None, 350, id="environment"),
        pytest.param("250W", "350", None, 350, id="environment-wins-over-script"),
        pytest.param("250W", "350", "450", 450, id="command-line-wins"),
        pytest.param(None, None, None, None, id="none"),
    ],
)
def test_an_option_reaches_slurmctld_from_wherever_it_was_given(
    slurm: DevCluster,
    in_script: str | None,
    in_environment: str | None,
    on_command_line: str | None,
    cap_watts: int | None,
) -> None:
    job_id = slurm.sbatch(
        "--hold",
        "--gpus=2",
        *([f"--gpu-power-cap={on_command_line}"] if on_command_line else []),
        script=f"#!/bin/sh\n{f'#SBATCH --gpu-power-cap={in_script}' if in_script else ''}\ntrue\n",
        environment={"SLURM_POWER_GPU_CAP": in_environment} if in_environment else {},
        user=USER,
    )
    assert mark_of(slurm, job_id).gpu_cap_watts == cap_watts
    assert slurm.job_facts(job_id)["Licenses"] == f"watts:{250 + 2 * (cap_watts or 700)}"


def test_every_option_stands_in_the_mark(slurm: DevCluster) -> None:
    options = ("--gpu-power-cap=300W", "--gpu-clock=1200", "--power-class=preemptible")
    bounds = ("--power-max-slowdown=0.25", "--power-max-delay=1-02:30")
    job_id = slurm.sbatch("--hold", "--gpus=1", *options, *bounds, script="true", user=USER)
    assert mark_of(slurm, job_id) == PowerRequest(300.0, 1200, PowerClass.PREEMPTIBLE, 0.25, 95_400.0)


def test_a_firm_job_holds_firm_watts_and_a_silent_one_is_flexible(slurm: DevCluster) -> None:
    firm = slurm.sbatch("--hold", "--gres=gpu:1", "--power-class=firm", script="true")
    silent = slurm.sbatch("--hold", "--gres=gpu:1", script="true")
    assert slurm.job_facts(firm)["Licenses"] == "firm_watts:825"
    assert slurm.job_facts(silent)["Licenses"] == "watts:825"
    assert mark_of(slurm, silent).power_class is PowerClass.FLEXIBLE


def test_an_interactive_job_is_firm(slurm: DevCluster) -> None:
    show = "scontrol show job $SLURM_JOB_ID"
    for command in (["srun"], ["salloc"]):
        done = slurm.run(*command, "--gpus=1", "--power-class=preemptible", "sh", "-c", show, user=USER)
        assert "Licenses=firm_watts:825" in done.stdout
        assert "AdminComment=slurm-power:class=firm" in done.stdout


def test_a_user_cannot_lie_about_watts_at_submission_or_later(slurm: DevCluster) -> None:
    job_id = slurm.sbatch("--hold", "--gpus=1", "--licenses=watts:1", script="true", user=USER)
    assert slurm.job_facts(job_id)["Licenses"] == "watts:825"

    for lie in ("watts:1", "", "firm_watts:1"):
        slurm.run("scontrol", "update", f"JobId={job_id}", f"Licenses={lie}", user=USER)
        assert slurm.job_facts(job_id)["Licenses"] == "watts:825"
    log = (slurm.layout.log / "slurmctld.log").read_text()
    assert log.count(f"updated job {job_id}: licences watts:825") == 3


def test_a_user_cannot_write_the_mark(slurm: DevCluster) -> None:
    job_id = slurm.sbatch("--hold", script="true", user=USER)
    mark = "slurm-power:class=firm"
    done = slurm.run("scontrol", "update", f"JobId={job_id}", f"AdminComment={mark}", user=USER, check=False)
    assert done.returncode != 0
    assert mark_of(slurm, job_id).power_class is PowerClass.FLEXIBLE


def test_a_pending_job_that_its_user_makes_larger_pays_for_it(slurm: DevCluster) -> None:
    job_id = slurm.sbatch("--hold", "--nodes=1", "--gpus-per-node=4", script="true", user=USER)
    assert slurm.job_facts(job_id)["Licenses"] == "watts:3300"
    slurm.run("scontrol", "update", f"JobId={job_id}", "NumNodes=2-2", user=USER)
    assert slurm.job_facts(job_id)["Licenses"] == "watts:6600"


def test_root_may_change_the_watts_of_a_running_job(slurm: DevCluster) -> None:
    job_id = slurm.sbatch("--gpus=1", "--time=5", script="sleep 60", user=USER)
    slurm.wait_for_job(job_id, "RUNNING")
    slurm.run("scontrol", "update", f"JobId={job_id}", "Licenses=watts:325")
    assert slurm.job_facts(job_id)["Licenses"] == "watts:325"
