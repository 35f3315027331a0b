"""A small model is served from sbatch by ranks on two nodes of a real Slurm, under a power cap; steered, measured."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from slurm_power.testing.cluster import DevCluster  # noqa: E402
from slurm_power.testing.nvml_emulator.emulator import EmulatedNode  # noqa: E402
from slurm_power.testing.processes import wait_for  # noqa: E402
from tests.cluster.agents import agents_on  # noqa: E402
from tests.cluster.ranks import kill_rank  # noqa: E402
from tests.serving.tiny_models import oracle_greedy, write_model  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.timeout(900)]

SERVE = Path(__file__).resolve().parents[2] / "etc" / "examples" / "serve.sbatch"
NODES = ("n1", "n2")
TWO_NODES = ("--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--gpus-per-node=1", "--cpus-per-task=1", "--time=10")
MODEL_OPTIONS = ("--memory-gib=0.3", "--swap-gib=0.01", "--max-model-len=256", "--max-batched-tokens=64")
IDLE_WATTS, CAP_WATTS, CLOCK_MHZ = 70.0, 400.0, 1200
START_S, END_S = 240.0, 90.0
PROMPT = [5, 9, 17, 40, 3]


class Workplace:
    """Two models, and a folder in which servers say where they are."""

    def __init__(self, slurm: DevCluster) -> None:
        self.slurm = slurm
        self.folder = slurm.layout.jobs / "serving"
        self.endpoints = self.folder / "endpoints"
        self.large = write_model(self.folder / "large", "llama")
        self.small = write_model(self.folder / "small", "llama", seed=1, num_hidden_layers=1)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "SLURM_POWER_SERVE_DIR": str(self.endpoints),
            "SLURM_POWER_EMULATED_LOAD": "1",
            "OMP_NUM_THREADS": "1",
        }

    def submit(self, *arguments: str) -> int:
        output = f"--output={self.slurm.layout.jobs}/slurm-%j.out"
        cap = f"--gpu-power-cap={CAP_WATTS:.0f}"
        argv = [
            "sbatch",
            "--parsable",
            output,
            *TWO_NODES,
            cap,
            str(SERVE),
            str(self.large),
            *MODEL_OPTIONS,
            *arguments,
        ]
        return int(self.slurm.run(*argv, environment=self.environment).stdout)

    def url(self, job_id: int) -> str:
        """Once it serves."""
        path = self.endpoints / f"{job_id}.json"
        assert wait_for(path.exists, timeout_s=START_S, poll_s=0.1), self.slurm.job_output(job_id)
        return str(json.loads(path.read_text())["url"])

    def command(self, *arguments: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "job_wrappers.serve", *arguments],
            env=os.environ | self.environment, capture_output=True, text=True, timeout=START_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def steer(self, job_id: int, *arguments: str) -> dict[str, Any]:
        return self.command("steer", "--job", str(job_id), "--json", *arguments)


@pytest.fixture
def work(slurm: DevCluster) -> Iterator[Workplace]:
    with agents_on(slurm, NODES):
        made = Workplace(slurm)
        yield made
    shutil.rmtree(made.folder)


def gpus(slurm: DevCluster) -> list[tuple[float, int | None]]:
    """(cap, clock lock) of the first GPU of each node."""
    found = []
    for name in NODES:
        with EmulatedNode.open(slurm.gpu_state(name)) as node:
            uuid = node.uuid_of_minor(0)
            found.append((node.gpu_cap_watts(uuid), node.locked_clock_mhz(uuid)))
    return found


def answer(url: str, new_tokens: int = 8) -> dict[str, Any]:
    body = {"prompt": PROMPT, "max_tokens": new_tokens, "temperature": 0, "logprobs": 0}
    response = httpx.post(f"{url}/v1/completions", json=body, timeout=60.0)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def test_a_capped_server_over_two_nodes_is_asked_steered_measured_and_started_again(work: Workplace) -> None:
    slurm = work.slurm
    job_id = work.submit("--also", str(work.small), "--served-model-name", "chat")
    url = work.url(job_id)
    assert gpus(slurm) == [(CAP_WATTS, None)] * 2

    first = answer(url)
    wanted = oracle_greedy(work.large, PROMPT, new_tokens=8)
    assert first["usage"]["completion_tokens"] == len(wanted)
    assert first["usage"]["energy_joules"] > 0

    assert_measured(work, job_id)
    assert work.steer(job_id, "clock", str(CLOCK_MHZ))["sm_clock_mhz"] == CLOCK_MHZ
    assert wait_for(lambda: gpus(slurm) == [(CAP_WATTS, CLOCK_MHZ)] * 2, timeout_s=10.0)
    work.steer(job_id, "clock")
    assert wait_for(lambda: gpus(slurm) == [(CAP_WATTS, None)] * 2, timeout_s=10.0)
    assert work.steer(job_id, "limits", "--max-num-seqs=3")["limits"]["max_num_seqs"] == 3
    assert work.steer(job_id, "model", "small")["active"] == "small"
    assert answer(url)["model"] == "small"

    slurm.run("scancel", "--signal=USR1", str(job_id))
    assert wait_for(lambda: slurm.job_facts(job_id)["Restarts"] == "1", timeout_s=END_S), slurm.job_output(job_id)
    assert "SIGUSR1: draining, 0 requests run" in slurm.job_output(job_id)
    again = answer(work.url(job_id))
    assert (again["model"], again["choices"]) == ("large", first["choices"])

    slurm.run("scancel", "--signal=TERM", str(job_id))
    facts = slurm.wait_for_job(job_id, "COMPLETED", "FAILED", "CANCELLED", timeout_s=END_S)
    assert (facts["JobState"], facts["Restarts"]) == ("COMPLETED", "1"), slurm.job_output(job_id)
    assert list(work.endpoints.iterdir()) == []


def assert_measured(work: Workplace, job_id: int) -> None:
    argv = ("--requests=24", "--prompt-tokens=8-60", "--new-tokens=24", "--concurrency=8")
    figures = work.command("bench", "--job", str(job_id), "--json", *argv)
    assert figures["outcomes"] == {"finished": 24}
    assert figures["generated_tokens"] == 24 * 24
    # Two GPUs on two nodes, between idle and their cap; the requests' joules are what the counters counted.
    assert 2 * IDLE_WATTS < figures["mean_watts"] < 2 * CAP_WATTS
    assert figures["requests_joules"] == pytest.approx(figures["energy_joules"], rel=0.3)


def test_a_killed_rank_ends_the_job_with_a_line_that_names_it(work: Workplace) -> None:
    slurm = work.slurm
    job_id = work.submit()
    answer(work.url(job_id))
    rank_1 = kill_rank(slurm, job_id, 1, program="slurm-power-serve")
    facts = slurm.wait_for_job(job_id, "FAILED", "COMPLETED", timeout_s=60.0)
    assert (facts["JobState"], facts["Restarts"]) == ("FAILED", "0")
    assert f"slurm-power-serve: rank 1 (n2, pid {rank_1}) is gone\n" in slurm.job_output(job_id)


def test_a_model_that_does_not_fit_is_said_in_numbers_and_the_job_ends_at_once(work: Workplace) -> None:
    slurm = work.slurm
    job_id = work.submit("--memory-gib=0.001")
    facts = slurm.wait_for_job(job_id, "FAILED", "COMPLETED", timeout_s=START_S)
    assert (facts["JobState"], facts["ExitCode"]) == ("FAILED", "3:0")
    assert "more than the memory budget of 1.0 MiB: raise --memory-gib" in slurm.job_output(job_id)
