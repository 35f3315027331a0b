"""A model on several ranks gives the tokens it gives on one; a rank that dies ends the server, at once and in words."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from job_wrappers.serving.errors import RankLost  # noqa: E402
from tests.serving.rank_functions_serving import MIB, generate, serve_until_lost  # noqa: E402
from tests.serving.test_serving_engine import prompts, wanted  # noqa: E402
from tests.serving.tiny_models import FAMILIES, tiny_folder  # noqa: E402
from tests.training.rank_processes import rank_processes  # noqa: E402
from tests.training.ranks import run_ranks  # noqa: E402

pytestmark = pytest.mark.torch


SPLITS = pytest.mark.parametrize(("tensor", "pipeline"), [(2, 1), (1, 2)], ids=["tensor-parallel", "pipeline-parallel"])


@SPLITS
def test_two_ranks_give_the_same_tokens(tensor: int, pipeline: int) -> None:
    """One after the other on the same ranks, which switch from each family to the next."""
    folders = {family: tiny_folder(family) for family in FAMILIES}
    found = run_ranks(generate, 2, folders, tensor, pipeline, prompts(), {"memory_bytes": 256 * MIB})[0]
    assert found == {family: wanted(folder) for family, folder in folders.items()}


def test_four_ranks_read_prompts_in_chunks_and_run_out_of_blocks() -> None:
    """Two stages of two shares each."""
    folders = {family: tiny_folder(family) for family in ("qwen3", "deepseek_v3")}
    settings: dict[str, Any] = {"max_batched_tokens": 40, "preemption": "swap", "prefix_caching": False}
    settings |= {"block_tokens": 4, "squeeze_blocks": 40}
    found = run_ranks(generate, 4, folders, 2, 2, prompts()[:32], settings)[0]
    assert found == {family: wanted(folder)[:32] for family, folder in folders.items()}


@pytest.mark.parametrize("rests", [False, True], ids=["computing", "resting"])
@SPLITS
def test_a_killed_rank_ends_the_server(tmp_path: Path, tensor: int, pipeline: int, rests: bool) -> None:
    ready = tmp_path / "ready"
    with rank_processes(tmp_path, serve_until_lost, 2, tiny_folder("llama"), tensor, pipeline, ready, rests) as ranks:
        kill_when(ready, ranks.processes[1])
        assert ranks.exit_codes(timeout_s=10.0)[0] == RankLost.exit_code
        assert ranks.said(0)[-1] == "rank 1 ended without a word"


def test_the_others_end_when_rank_0_is_killed(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    with rank_processes(tmp_path, serve_until_lost, 2, tiny_folder("llama"), 2, 1, ready, False) as ranks:
        kill_when(ready, ranks.processes[0])
        assert ranks.exit_codes(timeout_s=20.0)[1] == RankLost.exit_code


def kill_when(ready: Path, process: Any) -> None:
    deadline_s = time.monotonic() + 120
    while not ready.exists():
        assert process.is_alive(), "ended before it was ready"
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
