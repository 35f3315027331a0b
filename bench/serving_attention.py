"""Microseconds of one attention layer of decodes, our back-end for CPUs beside gathering and SDPA, and the bytes read.

`python -m bench.serving_attention` prints a line per case; the shape is that of `bench.serving`.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

HEADS, KV_HEADS, HEAD_SIZE, BLOCK_TOKENS = 8, 4, 64, 16
BATCHES, CONTEXTS = (1, 8, 32, 128), (128, 512)
LAYERS = 8


def main() -> None:
    print(f"{'sequences':>9} {'context':>8} {'ours µs':>9} {'gather + SDPA µs':>17} {'ours GB/s':>10}")
    for case in measure():
        print(
            f"{case['sequences']:>9} {case['context']:>8} {case['ours_us']:>9.1f} {case['reference_us']:>17.1f}"
            f" {case['bytes'] / case['ours_us'] / 1e3:>10.1f}"
        )


def measure() -> list[dict[str, Any]]:
    return [_case(sequences, context) for context in CONTEXTS for sequences in BATCHES]


def _case(sequences: int, context: int) -> dict[str, Any]:
    import torch

    from job_wrappers.serving.attention.cpu import CpuAttention
    from job_wrappers.serving.attention.reference import ReferenceAttention

    step, store = _decodes(sequences, context)
    queries = torch.randn(sequences, HEADS, HEAD_SIZE)
    taken_us = {}
    with torch.inference_mode():
        for name, backend, rounds in (("ours_us", CpuAttention(), 50), ("reference_us", ReferenceAttention(), 4)):
            taken_us[name] = _layer_s(backend, step, store, queries, rounds) * 1e6
    return {
        "sequences": sequences,
        "context": context,
        "bytes": store.layout.token_bytes // LAYERS * sequences * context,
        **taken_us,
    }


def _layer_s(backend: Any, step: Any, store: Any, queries: Any, rounds: int) -> float:
    """Layers are taken in turn, as a model does, so that each finds its cache as cold as it is in use. The lowest tenth
    counts: others may use the machine, too."""
    plan, seen = backend.plan(step), []
    for _ in range(rounds):
        for layer in store.layers():
            begin_s = time.perf_counter()
            backend.attend(queries, layer, plan, scale=0.125)
            seen.append(time.perf_counter() - begin_s)
    return sorted(seen)[len(seen) // 10]


def _decodes(sequences: int, context: int) -> tuple[Any, Any]:
    import torch

    from job_wrappers.serving.kv.layout import KvLayout
    from job_wrappers.serving.kv.store import KvStore
    from job_wrappers.serving.steps.step_input import BlockMoves, StepInput

    blocks = context // BLOCK_TOKENS
    tables = np.random.default_rng(0).permutation(sequences * blocks).reshape(sequences, blocks)
    none = np.zeros((0, 2), dtype=np.int64)
    step = StepInput(
        token_ids=np.zeros(sequences, dtype=np.int64),
        positions=np.full(sequences, context - 1),
        slots=tables[:, -1] * BLOCK_TOKENS + BLOCK_TOKENS - 1,
        query_starts=np.arange(sequences + 1),
        context_lengths=np.full(sequences, context),
        block_tables=tables,
        decodes=sequences,
        logit_rows=np.arange(sequences),
        moves=BlockMoves(swap_out=none, swap_in=none, copies=none),
    )
    layout = KvLayout(
        layers=LAYERS,
        kv_heads=KV_HEADS,
        key_size=HEAD_SIZE,
        value_size=HEAD_SIZE,
        bytes_per_number=4,
        block_tokens=BLOCK_TOKENS,
    )
    store = KvStore(layout, device_blocks=sequences * blocks, host_blocks=0, device="cpu", dtype=torch.float32)
    for layer in store.layers():
        layer.keys.normal_()
        layer.values.normal_()
    return step, store


if __name__ == "__main__":
    main()
