"""Decode and prefill of a 1 B-shaped random model on a GPU, as shares of what memory and matrix units allow.

`python -m bench.gpu_serving` prints the figures; `measure()` returns them, None without a GPU.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from bench.gpu_device import gpu_device, measured
from bench.serving_model import make

FOLDER = Path("build/bench/serving-model-1b")
SHAPE = {
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
"""Of Llama 3.2 1B (its config.json)."""

BATCHES = (1, 8, 32, 128)
PROMPT_TOKENS, NEW_TOKENS = 512, 64
BF16_BYTES = 2


def main() -> None:
    print(json.dumps(measured("bench.gpu_serving", measure), indent=2))


def measure() -> dict[str, Any] | None:
    device = gpu_device()
    if device is None:
        return None
    import torch

    from bench import gpu_meter

    read_bytes_per_s = gpu_meter.memory_read_bytes_per_s(device)
    flops_per_s = gpu_meter.bf16_flops_per_s(device)
    return {
        "device": torch.cuda.get_device_name(device),
        "torch": torch.__version__,
        "memory_read_bytes_per_s": read_bytes_per_s,
        "bf16_flops_per_s": flops_per_s,
        "shape": SHAPE,
        "cases": _cases(make(FOLDER, SHAPE), read_bytes_per_s, flops_per_s),
    }


def _cases(folder: Path, read_bytes_per_s: float, flops_per_s: float) -> list[dict[str, Any]]:
    from job_wrappers.serving.engine.config import EngineConfig, EnginePorts, ModelSpec, StepRecord
    from job_wrappers.serving.engine.offline import Offline, one_rank_host
    from job_wrappers.serving.requests.params import SamplingParams

    steps: list[StepRecord] = []
    config = EngineConfig(
        models=(ModelSpec(name="model", path=folder),), dtype="bf16", prefix_caching=False, max_num_seqs=max(BATCHES)
    )
    ports = EnginePorts(on_step=steps.append, say=lambda line: None)
    offline = Offline(one_rank_host(config, ports, device="cuda"))
    params = SamplingParams(temperature=0.0, max_tokens=NEW_TOKENS, ignore_eos=True)
    cases = []
    for count in BATCHES:
        given = [[16 + (row * 7919 + i * 31) % 8192 for i in range(PROMPT_TOKENS)] for row in range(count)]
        offline.generate(given, params)
        steps.clear()
        offline.generate(given, params)
        decode = [step for step in steps if step.prefill_tokens == 0 and step.sequences == count]
        prefill = [step for step in steps if step.decode_tokens == 0]
        decode_s = statistics.median(step.step_s for step in decode)
        prefill_tokens_per_s = sum(s.prefill_tokens for s in prefill) / sum(s.step_s for s in prefill)
        cases.append(
            {
                "prompts": count,
                "decode_tokens_per_s": count / decode_s,
                "decode_of_memory_bound": step_bytes(count) / read_bytes_per_s / decode_s,
                "prefill_tokens_per_s": prefill_tokens_per_s,
                "prefill_of_matmul_bound": prefill_tokens_per_s * token_flops() / flops_per_s,
            }
        )
    return cases


def layer_numbers() -> int:
    """Of the weights that every token goes through."""
    hidden, size = SHAPE["hidden_size"], SHAPE["head_dim"]
    queries, keys = SHAPE["num_attention_heads"] * size, SHAPE["num_key_value_heads"] * size
    each = hidden * (2 * queries + 2 * keys + 3 * SHAPE["intermediate_size"])
    return SHAPE["num_hidden_layers"] * each


def step_bytes(sequences: int) -> int:
    """Read at least once by an iteration: all weights, and the keys and values of half the answer."""
    keys = SHAPE["num_key_value_heads"] * SHAPE["head_dim"] * 2 * SHAPE["num_hidden_layers"] * BF16_BYTES
    head = SHAPE["vocab_size"] * SHAPE["hidden_size"]
    return (layer_numbers() + head) * BF16_BYTES + sequences * keys * (PROMPT_TOKENS + NEW_TOKENS // 2)


def token_flops() -> int:
    """Of a token of a prompt: products with weights, and attention over half the prompt. No head: few rows need it."""
    attention = 2 * 2 * SHAPE["num_attention_heads"] * SHAPE["head_dim"] * PROMPT_TOKENS // 2
    return 2 * layer_numbers() + SHAPE["num_hidden_layers"] * attention


if __name__ == "__main__":
    main()
