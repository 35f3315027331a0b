"""Our Triton kernel beside gathering and SDPA on a GPU: seconds, differences, and the share of the memory's pace.

`python -m bench.gpu_serving_attention` prints the cases; `measure()` returns them, None without a GPU.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.gpu_device import gpu_device, measured

BLOCK_TOKENS, BF16_BYTES = 16, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    heads: int
    kv_heads: int
    key_size: int
    value_size: int
    values_in_keys: bool = False


LLAMA_8B = Heads(heads=32, kv_heads=8, key_size=128, value_size=128)
DEEPSEEK_V3 = Heads(heads=128, kv_heads=1, key_size=576, value_size=512, values_in_keys=True)
"""Of the models' config.json."""

DECODES = [(sequences, context, 1) for context in (512, 4096) for sequences in (1, 8, 32, 128)]
PROMPTS = [(1, 2048, 2048), (4, 4096, 512)]
"""(sequences, context, new tokens of each)"""


def main() -> None:
    print(json.dumps(measured("bench.gpu_serving_attention", measure), indent=2))


def measure() -> dict[str, Any] | None:
    device = gpu_device()
    if device is None:
        return None
    import torch

    from bench import gpu_meter

    read_bytes_per_s = gpu_meter.memory_read_bytes_per_s(device)
    shapes = (("llama-8b", LLAMA_8B), ("deepseek-v3", DEEPSEEK_V3))
    cases = [{"model": name, **_case(shape, *case)} for name, shape in shapes for case in DECODES + PROMPTS]
    for case in cases:
        case["of_memory_bound"] = case["bytes"] / read_bytes_per_s / case["ours_s"]
    return {
        "device": torch.cuda.get_device_name(device),
        "torch": torch.__version__,
        "memory_read_bytes_per_s": read_bytes_per_s,
        "cases": cases,
    }


def difference(*, values_in_keys: bool) -> float:
    """Largest, in BF16, from gathering and SDPA, over decodes and prompts."""
    shape = DEEPSEEK_V3 if values_in_keys else LLAMA_8B
    return max(float(_case(shape, *case, time_it=False)["difference"]) for case in (DECODES[5], PROMPTS[1]))


def _case(shape: Heads, sequences: int, context: int, new: int, *, time_it: bool = True) -> dict[str, Any]:
    import torch

    from bench import gpu_meter
    from job_wrappers.serving.attention.gpu import GpuAttention
    from job_wrappers.serving.attention.reference import ReferenceAttention

    device = torch.device("cuda", torch.cuda.current_device())
    step, store = _step(sequences, context, new), _store(shape, sequences * context // BLOCK_TOKENS, device)
    queries = torch.randn(sequences * new, shape.heads, shape.key_size, device=device, dtype=torch.bfloat16)
    results, taken_s = [], []
    with torch.inference_mode():
        for backend in (GpuAttention(device), ReferenceAttention()):
            plan: Any = backend.plan(step)

            def attend(backend: Any = backend, plan: Any = plan) -> Any:
                return backend.attend(queries, store.layer(0), plan, scale=shape.key_size**-0.5)

            results.append(attend().float())
            taken_s.append(gpu_meter.seconds(attend) if time_it else 0.0)
    return {
        "sequences": sequences,
        "context": context,
        "new_tokens": new,
        "bytes": store.layout.token_bytes * sequences * context,
        "ours_s": taken_s[0],
        "gather_sdpa_s": taken_s[1],
        "difference": float((results[0] - results[1]).abs().max()),
    }


def _store(shape: Heads, blocks: int, device: Any) -> Any:
    import torch

    from job_wrappers.serving.kv.layout import KvLayout
    from job_wrappers.serving.kv.store import KvStore

    layout = KvLayout(
        layers=1,
        kv_heads=shape.kv_heads,
        key_size=shape.key_size,
        value_size=shape.value_size,
        values_in_keys=shape.values_in_keys,
        bytes_per_number=BF16_BYTES,
        block_tokens=BLOCK_TOKENS,
    )
    store = KvStore(layout, device_blocks=blocks, host_blocks=0, device=device, dtype=torch.bfloat16)
    store.layer(0).keys.normal_()
    if not shape.values_in_keys:
        store.layer(0).values.normal_()
    return store


def _step(sequences: int, context: int, new: int) -> Any:
    from job_wrappers.serving.steps.step_input import BlockMoves, StepInput

    blocks = context // BLOCK_TOKENS
    tables = np.random.default_rng(0).permutation(sequences * blocks).reshape(sequences, blocks)
    none, rows = np.zeros((0, 2), dtype=np.int64), np.arange(sequences * new)
    return StepInput(
        token_ids=rows,
        positions=context - new + rows % new,
        slots=rows,
        query_starts=np.arange(sequences + 1) * new,
        context_lengths=np.full(sequences, context),
        block_tables=tables,
        decodes=sequences if new == 1 else 0,
        logit_rows=rows,
        moves=BlockMoves(swap_out=none, swap_in=none, copies=none),
    )


if __name__ == "__main__":
    main()
