"""What two cores allow: how fast memory is read and matrices are multiplied, and the tokens/s that follow from it.

A bound from weights and products alone: attention, sampling and the engine's own work come on top.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from bench.serving_model import BATCHES, NEW_TOKENS, THREADS, matrices, prompts

FP32_BYTES = 4
SQUARE = 2048
ROUNDS = 7


def measure() -> dict[str, Any]:
    import torch

    torch.set_num_threads(THREADS)
    square = torch.randn(SQUARE, SQUARE)
    weights = [torch.randn(shape) for shape in matrices()]
    with torch.inference_mode():
        bytes_per_s = _weight_bytes() / _best_s(lambda: [weight.sum() for weight in weights])
        flops_per_s = 2.0 * SQUARE**3 / _best_s(lambda: square @ square)
        reached = {str(rows): _products(weights, rows) for rows in BATCHES}
    return {
        "memory_read_bytes_per_s": bytes_per_s,
        "matmul_flops_per_s": flops_per_s,
        "weight_bytes_per_step": _weight_bytes(),
        "weights_read_bytes_per_s": {rows: seen["bytes_per_s"] for rows, seen in reached.items()},
        "products_flops_per_s": {rows: seen["flops_per_s"] for rows, seen in reached.items()},
        "bound_tokens_per_s": {str(count): bound_tokens_per_s(count, bytes_per_s, flops_per_s) for count in BATCHES},
    }


def bound_tokens_per_s(count: int, bytes_per_s: float, flops_per_s: float) -> float:
    """`count` prompts at once: these as fast as matrices multiply, then steps that each read all weights at least once,
    and multiply."""
    per_token_flops = 2.0 * _weight_bytes() / FP32_BYTES
    step_s = max(_weight_bytes() / bytes_per_s, count * per_token_flops / flops_per_s)
    prefill_s = sum(map(len, prompts(count))) * per_token_flops / flops_per_s
    return count * NEW_TOKENS / (prefill_s + (NEW_TOKENS - 1) * step_s)


def _products(weights: list[Any], rows: int) -> dict[str, float]:
    """All matrices of the model one after the other, with the product that our engine uses."""
    import torch

    from job_wrappers.serving.kernels.packed_matrix import packed
    from job_wrappers.serving.kernels.shelf import Shelf

    shelf = Shelf()
    pairs = [(torch.randn(rows, weight.shape[1]), packed(weight, room=shelf.room) or weight.T) for weight in weights]

    def step() -> None:
        for x, matrix in pairs:
            _ = x @ matrix if isinstance(matrix, torch.Tensor) else matrix(x)

    took_s = _best_s(step)
    return {
        "bytes_per_s": _weight_bytes() / took_s,
        "flops_per_s": rows * 2.0 * _weight_bytes() / FP32_BYTES / took_s,
    }


def _weight_bytes() -> int:
    return sum(outputs * inputs for outputs, inputs in matrices()) * FP32_BYTES


def _best_s(call: Callable[[], object]) -> float:
    call()
    seen = []
    for _ in range(ROUNDS):
        begin_s = time.perf_counter()
        call()
        seen.append(time.perf_counter() - begin_s)
    return statistics.median(sorted(seen)[:3])
