"""slurm-power-serve as a user starts it: a process of its own, steered and drained; two ranks on one machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from slurm_power.testing.nvml_emulator.emulator import ENVIRONMENT as EMULATED_NODE  # noqa: E402
from slurm_power.testing.nvml_emulator.emulator import EmulatedNode, build_library  # noqa: E402
from tests.serving.tiny_models import oracle_greedy, write_model  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("serving-processes")]

START_S = 120.0
IDLE_WATTS = 70.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "large", "llama")


@contextmanager
def started(
    folder: Path, *options: str, **more: str
) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any], dict[str, str]]]:
    """(process, endpoint, environment)"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    environment |= {"SLURM_POWER_SERVE_DIR": str(folder), "OMP_NUM_THREADS": "1", **more}
    command = [sys.executable, "-m", "job_wrappers.serve", *options]
    process = subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, []) and None,
    )  # fmt: skip
    try:
        yield process, _endpoint(process, folder), environment
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _endpoint(process: subprocess.Popen[str], folder: Path) -> dict[str, Any]:
    until_s = time.monotonic() + START_S
    while time.monotonic() < until_s:
        for path in folder.glob("*.json"):
            found: dict[str, Any] = json.loads(path.read_text())
            return found
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise AssertionError(f"no server came up: {process.communicate()[0] if process.poll() is not None else 'silence'}")


def steer(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "job_wrappers.serve", "steer", *arguments]
    return subprocess.run(command, env=environment, text=True, capture_output=True, timeout=60, check=False)


SMALL = ("--memory-gib", "0.2", "--swap-gib", "0.01", "--max-model-len", "256", "--max-batched-tokens", "64")


def test_a_server_is_found_steered_and_drained(model: Path, tmp_path: Path) -> None:
    with started(tmp_path, str(model), *SMALL, "--served-model-name", "chat") as (process, endpoint, environment):
        prompt = [5, 9, 17]
        body = {"model": "chat", "prompt": prompt, "max_tokens": 6, "temperature": 0}
        answer = httpx.post(f"{endpoint['url']}/v1/completions", json=body, timeout=60).json()
        wanted = oracle_greedy(model, prompt, new_tokens=6)
        assert answer["usage"]["completion_tokens"] == len(wanted)
        limits = steer(environment, "--json", "limits", "--max-num-seqs", "3")
        assert json.loads(limits.stdout)["limits"]["max_num_seqs"] == 3
        shown = steer(environment, "status")
        assert "at most 3 sequences" in shown.stdout
        refused = steer(environment, "model", "huge")
        assert (refused.returncode, "no model huge" in refused.stderr) == (5, True)
        process.send_signal(signal.SIGTERM)
        output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output
    assert "blocks of" in output
    assert "SIGTERM: draining" in output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cut", [("--tensor-parallel", "2"), ("--pipeline-parallel", "2")], ids=["tensor", "pipeline"])
def test_two_ranks_give_the_tokens_of_one_and_the_joules_of_two_gpus(
    model: Path, tmp_path: Path, cut: tuple[str, str]
) -> None:
    library, state = build_library(), tmp_path / "gpus.state"
    emulated = {"LD_LIBRARY_PATH": str(library), EMULATED_NODE: str(state), "SLURM_POWER_EMULATED_LOAD": "1"}
    folder = tmp_path / "endpoints"
    with (
        EmulatedNode.create(state, gpu_count=2) as node,
        started(folder, str(model), *SMALL, *cut, "--local-ranks", **emulated, CUDA_VISIBLE_DEVICES="0,1") as (
            process,
            endpoint,
            environment,
        ),
    ):
        joules = 0.0
        for length in (3, 40, 90):
            prompt = [(7 * i + length) % 500 + 2 for i in range(length)]
            body = {"prompt": prompt, "max_tokens": 12, "temperature": 0, "logprobs": 0}
            answer = httpx.post(f"{endpoint['url']}/v1/completions", json=body, timeout=60).json()
            wanted = oracle_greedy(model, prompt, new_tokens=12)
            assert len(answer["choices"][0]["logprobs"]["tokens"]) == len(wanted)
            assert answer["choices"][0]["text"] == _text(model, prompt, wanted)
            joules += answer["usage"]["energy_joules"]
        status = json.loads(steer(environment, "--json", "status").stdout)
        counted = sum(node.gpu_energy_joules(uuid) for uuid in node.gpu_uuids())
        assert 0 < joules < status["energy_joules_total"] <= counted
        assert status["watts"] > 2 * IDLE_WATTS, "both GPUs are counted"
        process.send_signal(signal.SIGUSR1)
        output = process.communicate(timeout=60)[0]
    assert process.returncode == 75, output
    assert list(folder.iterdir()) == []


def test_a_rank_that_is_killed_ends_the_server_with_a_clear_line(model: Path, tmp_path: Path) -> None:
    import psutil

    with started(tmp_path, str(model), *SMALL, "--tensor-parallel", "2", "--local-ranks") as (process, endpoint, _):
        ranks = psutil.Process(process.pid).children()
        victim = next(rank for rank in ranks if rank.pid != endpoint["pid"])
        victim.kill()
        output = process.communicate(timeout=30)[0]
    assert process.returncode == 6
    assert output.count(f"rank 1 (localhost, pid {victim.pid}) is gone") == 1


def test_a_model_that_does_not_fit_is_refused_with_the_numbers(model: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "job_wrappers.serve", str(model), "--memory-gib", "0.001"]
    environment = {**os.environ, "SLURM_POWER_SERVE_DIR": str(tmp_path)}
    found = subprocess.run(command, env=environment, text=True, capture_output=True, timeout=120, check=False)
    assert found.returncode == 3
    assert "more than the memory budget of 1.0 MiB: raise --memory-gib" in found.stderr + found.stdout


def _text(folder: Path, prompt: list[int], tokens: list[int]) -> str:
    from job_wrappers.serving.text.tokenizer import load_text

    text = load_text(folder)
    assert text is not None
    ending = [token for token in tokens if token not in text.eos]
    return text.decode([*prompt, *ending])[len(text.decode(prompt)) :]
