"""Run as a program, because Triton decides at its first import whether it interprets: prints what it saw as JSON."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from job_wrappers.serving.attention.gpu import GpuAttention
from job_wrappers.serving.kernels import paged_gpu, paged_triton
from tests.serving.paged_steps import Shape, fill, make_step, make_store, naive

PLAIN = Shape(heads=4, kv_heads=2, key_size=32, value_size=32)
LATENT = Shape(heads=20, kv_heads=1, key_size=48, value_size=32, values_in_keys=True)
SHAPES = {
    "multi-head": Shape(heads=2, kv_heads=2, key_size=16, value_size=16),
    "grouped": PLAIN,
    "one kv head, sizes of their own": Shape(heads=3, kv_heads=1, key_size=24, value_size=40),
    "latent": LATENT,
    "short blocks": Shape(heads=2, kv_heads=1, key_size=16, value_size=16, block_tokens=3),
}
LENGTHS = {
    "decodes": [(0, 1), (15, 1), (16, 1), (64, 1)],
    "cut decodes": [(600, 1), (3, 1), (255, 1), (256, 1)],
    "prompts and chunks": [(0, 17), (0, 2), (16, 40), (70, 5)],
    "mixed": [(300, 1), (1, 1), (0, 20), (64, 19), (0, 1)],
    "nothing": [],
}


def interpret() -> dict[str, Any]:
    """Largest difference from the loop, by shape and lengths."""
    errors = {
        f"{shape}, {lengths}": _error(SHAPES[shape], LENGTHS[lengths], torch.float32)
        for shape in SHAPES
        for lengths in LENGTHS
    }
    # The interpreter multiplies BF16 as if its bits were whole numbers: FP16 stands in for it.
    half = {name: _error(SHAPES[name], LENGTHS["mixed"], torch.float16) for name in ("grouped", "latent")}
    return {
        "errors": errors,
        "half": half,
        "trial": paged_gpu.trial(torch.device("cpu"), torch.float16),
        "written": {str(dtype): _written(dtype) for dtype in (torch.float32, torch.bfloat16)},
    }


def _error(shape: Shape, lengths: Any, dtype: torch.dtype) -> float:
    step, blocks = make_step(lengths, block_tokens=shape.block_tokens)
    layer = make_store(shape, blocks, dtype).layer(1)
    written = fill(layer, step, shape, dtype)
    random = torch.Generator().manual_seed(2)
    merged = torch.randn(len(step.positions), shape.heads + 1, shape.key_size, generator=random).to(dtype)
    backend = GpuAttention("cpu")
    result = backend.attend(merged[:, 1:], layer, backend.plan(step), scale=0.2)
    assert result.dtype is dtype
    assert len(result) == len(merged)
    return float((result - naive(merged[:, 1:], written, step, scale=0.2)).abs().max()) if lengths else 0.0


def _written(dtype: torch.dtype) -> bool:
    """Whether the kernel writes what the store writes without it, from a view, keys alone too."""
    slots, same = torch.tensor([3, 40, 17]), True
    for shape in (PLAIN, LATENT):
        ours, theirs = (make_store(shape, 3, dtype).layer(0) for _ in range(2))
        merged = torch.randn(3, 2 * shape.kv_heads, shape.key_size).to(dtype)
        keys, values = merged[:, : shape.kv_heads], merged[:, shape.kv_heads :, : shape.value_size]
        new_values = None if shape.values_in_keys else values
        theirs.write(keys, new_values, slots)
        paged_triton.write(ours.keys, ours.values, keys, new_values, slots, block_tokens=16)
        same = same and torch.equal(ours.keys, theirs.keys) and torch.equal(ours.values, theirs.values)
    return same


SIZES = {
    "head of 64": {"group": 4, "key_size": 64, "value_size": 64, "key_pad": 64, "value_pad": 64, "tokens": 64},
    "head of 128": {"group": 4, "key_size": 128, "value_size": 128, "key_pad": 128, "value_pad": 128, "tokens": 64},
    "latent": {"group": 128, "key_size": 576, "value_size": 512, "key_pad": 64, "value_pad": 512, "tokens": 32},
}
_BF16, _FP32, _INT64 = "*bf16", "*fp32", "*i64"
POINTERS = {
    **dict.fromkeys(("queries", "keys", "values", "result"), _BF16),
    **dict.fromkeys(("partial", "tops", "sums"), _FP32),
    **dict.fromkeys(("tiles", "starts", "lengths", "tables"), _INT64),
}


def compile_for(capability: int) -> dict[str, dict[str, Any]]:
    """Matrix instructions, shared memory and registers spilled, by size and kind of launch. Needs no GPU."""
    kinds = {"decode": {"rows": 16, "part": paged_triton.PART}, "prompt": {"rows": 64, "part": 0}}
    found = {}
    for size_name, sizes in SIZES.items():
        for kind_name, kind in kinds.items():
            constants = {**sizes, **kind, "block_tokens": 16, "values_in_keys": size_name == "latent"}
            found[f"{size_name}, {kind_name}"] = _compiled(constants, capability)
    return found


def _compiled(constants: dict[str, Any], capability: int) -> dict[str, Any]:
    kernel = paged_triton._attend
    types = {**POINTERS, "scale": "fp32", **dict.fromkeys(constants, "constexpr")}
    source = ASTSource(
        fn=kernel,
        signature={name: types.get(name, "i32") for name in kernel.arg_names},
        constexprs={(kernel.arg_names.index(name),): value for name, value in constants.items()},
        attrs={
            (index,): [["tt.divisibility", 16]]
            for index, name in enumerate(kernel.arg_names)
            if name not in constants and name not in ("scale", "heads", "table_row")
        },
    )
    options = {"num_warps": 8 if constants["tokens"] == 32 else 4, "num_stages": paged_triton.NUM_STAGES}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    return {
        "products": sorted(set(re.findall(r"(?:wgmma\.mma_async|mma\.sync)", compiled.asm["ptx"]))),
        "shared_bytes": compiled.metadata.shared,
    }


if __name__ == "__main__":
    print(json.dumps(interpret() if sys.argv[1] == "interpret" else compile_for(int(sys.argv[2]))))
