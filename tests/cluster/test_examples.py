"""The example jobs of etc/examples: a real sbatch takes each as it is, and each runs to its end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slurm_power.relocation.job_mark import parse_mark
from slurm_power.relocation.jobs import PowerClass
from slurm_power.testing.cluster import DevCluster
from slurm_power.testing.processes import wait_for

EXAMPLES = Path(__file__).resolve().parents[2] / "etc" / "examples"
EXPECTED = {
    "firm": (PowerClass.FIRM, "firm_watts:825"),
    "flexible": (PowerClass.FLEXIBLE, "watts:1050"),
    "preemptible": (PowerClass.PREEMPTIBLE, "watts:3300"),
    "train": (PowerClass.PREEMPTIBLE, "watts:5000"),
    "serve": (PowerClass.FIRM, "firm_watts:625"),
}
NEED_TORCH = ("train", "serve")  # test_training_on_slurm.py, test_serving_on_slurm.py
RUN_HERE = [name for name in EXPECTED if name not in NEED_TORCH]


def submit(slurm: DevCluster, name: str, *options: str, work_s: float = 1.0) -> int:
    script = (EXAMPLES / f"{name}.sbatch").read_text()
    return slurm.sbatch(*options, script=script, environment={"WORK_S": str(work_s)})


def test_every_example_is_known_here() -> None:
    assert {file.stem for file in EXAMPLES.glob("*.sbatch")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_an_example_is_accepted_with_its_class_and_watts(slurm: DevCluster, name: str) -> None:
    facts = slurm.job_facts(submit(slurm, name, "--hold"))
    power_class, licenses = EXPECTED[name]
    assert parse_mark(facts["AdminComment"]).request.power_class is power_class
    assert facts["Licenses"] == licenses


@pytest.mark.parametrize("name", RUN_HERE)
def test_an_example_runs_to_its_end(slurm: DevCluster, name: str) -> None:
    job_id = submit(slurm, name)
    assert slurm.wait_for_job(job_id, "COMPLETED", "FAILED", timeout_s=60.0)["JobState"] == "COMPLETED"
    assert "exit code 0" in slurm.job_output(job_id)


def test_the_preemptible_example_goes_on_from_its_checkpoint_when_requeued(slurm: DevCluster) -> None:
    job_id = submit(slurm, "preemptible", work_s=12.0)
    checkpoint = slurm.layout.jobs / f"checkpoint-{job_id}.json"
    assert wait_for(checkpoint.exists, timeout_s=40.0)  # written every few seconds
    slurm.run("scontrol", "requeue", str(job_id))
    slurm.wait_for_job(job_id, "PENDING")
    saved_s = json.loads(checkpoint.read_text())["work_done_s"]
    assert 0 < saved_s < 12.0

    facts = slurm.wait_for_job(job_id, "COMPLETED", "FAILED", timeout_s=90.0)
    assert (facts["JobState"], facts["Restarts"]) == ("COMPLETED", "1")
    second_run_s = float(slurm.job_output(job_id).rpartition("GPUs, ")[2].partition(" s,")[0])
    assert second_run_s < 12.0 - saved_s + 5.0, "it began anew"
