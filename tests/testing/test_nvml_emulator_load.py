"""slurm-power-emulated-load as a job runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slurm_power.errors import ConfigError, DeviceGone
from slurm_power.testing.emulated_load import job_gpus, read_checkpoint, write_checkpoint
from slurm_power.testing.nvml_emulator.emulator import ENVIRONMENT, EmulatedNode

Job = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[EmulatedNode]:
    with EmulatedNode.create(tmp_path / "n1" / "gpus.state") as opened:
        yield opened


@pytest.fixture
def job(node: EmulatedNode) -> Iterator[Job]:
    started: list[subprocess.Popen[str]] = []

    def start_job(*arguments: object, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "slurm_power.testing.emulated_load", *map(str, arguments)],
            env={"PATH": os.environ["PATH"], ENVIRONMENT: str(node.state_file), **environment},
            cwd=Path(__file__).parents[2],
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start_job
    for process in started:
        process.kill()
        process.communicate()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline_s, "waited 30 s"
        time.sleep(0.05)


def busy(node: EmulatedNode, uuid: str) -> bool:
    return node.gpu_draw_watts(uuid) > 100


def test_it_works_on_its_own_gpus_only_and_ends_with_success(node: EmulatedNode, job: Job) -> None:
    process = job("--work-s", 60, CUDA_VISIBLE_DEVICES="0,1")
    mine = {node.uuid_of_minor(0), node.uuid_of_minor(1)}
    wait_until(lambda: all(busy(node, uuid) for uuid in mine))
    assert {uuid for uuid in node.gpu_uuids() if busy(node, uuid)} == mine
    node.pass_time(100)
    assert process.wait(timeout=30) == 0
    assert not any(busy(node, uuid) for uuid in mine)


def test_a_cap_on_one_of_its_gpus_makes_the_whole_job_slower(node: EmulatedNode, job: Job) -> None:
    slow, fast = node.gpu_uuids()[:2]
    node.set_found_cap(slow, 200)
    process = job("--work-s", 100, "--utilisation", 1, SLURM_POWER_GPU_UUIDS=f"{slow},{fast}")
    wait_until(lambda: busy(node, slow) and busy(node, fast))
    node.pass_time(110)
    assert node.work_done(fast, pid=process.pid) > 100 > node.work_done(slow, pid=process.pid)
    time.sleep(0.5)  # two of its polls
    assert process.poll() is None
    node.pass_time(110)
    assert process.wait(timeout=30) == 0


def test_sigterm_ends_it_with_143_and_leaves_no_load_behind(node: EmulatedNode, job: Job) -> None:
    uuid = node.gpu_uuids()[0]
    process = job("--work-s", 1000, SLURM_POWER_GPU_UUIDS=uuid)
    wait_until(lambda: busy(node, uuid))
    process.terminate()
    assert process.wait(timeout=30) == 143
    assert node.gpu_draw_watts(uuid) == 70


def test_a_checkpoint_carries_the_work_into_the_next_run(node: EmulatedNode, job: Job, tmp_path: Path) -> None:
    uuid, checkpoint = node.gpu_uuids()[0], tmp_path / "progress.json"
    first = job("--work-s", 200, "--utilisation", 1, "--checkpoint", checkpoint, SLURM_POWER_GPU_UUIDS=uuid)
    wait_until(lambda: busy(node, uuid))
    node.pass_time(150)
    first.terminate()
    assert first.wait(timeout=30) == 143
    assert 150 <= read_checkpoint(checkpoint) < 200
    second = job("--work-s", 200, "--utilisation", 1, "--checkpoint", checkpoint, SLURM_POWER_GPU_UUIDS=uuid)
    wait_until(lambda: busy(node, uuid))
    node.pass_time(50)
    assert second.wait(timeout=30) == 0


def test_sigusr1_saves_and_goes_on(node: EmulatedNode, job: Job, tmp_path: Path) -> None:
    uuid, checkpoint = node.gpu_uuids()[0], tmp_path / "progress.json"
    process = job("--work-s", 1000, "--checkpoint", checkpoint, SLURM_POWER_GPU_UUIDS=uuid)
    wait_until(lambda: busy(node, uuid))
    node.pass_time(30)
    process.send_signal(signal.SIGUSR1)
    wait_until(checkpoint.exists)
    assert read_checkpoint(checkpoint) > 25
    assert process.poll() is None


def test_a_lost_gpu_ends_the_job_with_an_error(node: EmulatedNode, job: Job) -> None:
    uuid = node.gpu_uuids()[0]
    process = job("--work-s", 1000, SLURM_POWER_GPU_UUIDS=uuid)
    wait_until(lambda: busy(node, uuid))
    node.set_fault(uuid, "lost")
    assert process.wait(timeout=30) == DeviceGone.exit_code
    assert process.stderr is not None
    assert uuid in process.stderr.read()


@pytest.mark.parametrize(
    ("environment", "minors"),
    [
        pytest.param({"CUDA_VISIBLE_DEVICES": "2,0"}, [2, 0], id="indices-are-minor-numbers"),
        pytest.param({"CUDA_VISIBLE_DEVICES": "0", "SLURM_POWER_GPU_UUIDS": "GPU-x"}, ["GPU-x"], id="our-own-first"),
        pytest.param({"CUDA_VISIBLE_DEVICES": "GPU-x, GPU-y"}, ["GPU-x", "GPU-y"], id="uuids"),
    ],
)
def test_a_job_finds_its_gpus(node: EmulatedNode, environment: dict[str, str], minors: list[int | str]) -> None:
    expected = [node.uuid_of_minor(name) if isinstance(name, int) else name for name in minors]
    assert job_gpus(environment, node) == expected


def test_a_job_without_a_gpu_says_so(node: EmulatedNode) -> None:
    with pytest.raises(ConfigError, match="CUDA_VISIBLE_DEVICES"):
        job_gpus({}, node)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"work_done_s": "x"}', '{"work_done_s": -1}', '{"work_done_s": NaN}']
)
def test_a_broken_checkpoint_is_named_not_ignored(tmp_path: Path, text: str) -> None:
    path = tmp_path / "progress.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"progress\.json"):
        read_checkpoint(path)


def test_a_checkpoint_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    write_checkpoint(path, 1.0)
    write_checkpoint(path, 2.5)
    assert json.loads(path.read_text()) == {"work_done_s": 2.5}
    assert list(tmp_path.iterdir()) == [path]


def test_it_imports_nothing_heavy() -> None:
    words = "import sys, slurm_power.testing.emulated_load; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "click", "rich", "pynvml", "asyncio"} & set(loaded)
