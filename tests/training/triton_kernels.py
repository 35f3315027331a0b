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

from training.fp8 import triton_gemm, triton_quantise
from training.fp8.backend import pick
from training.fp8.fused import difference
from training.fp8.qtensor import dequantise
from training.fp8.quantise import quantise_blocks, quantise_rows
from training.matmul import grouped_linear
from training.precision import policy

SIZES = [(128, 256, 256), (130, 70, 300), (5, 257, 128), (256, 128, 1), (1, 1, 1), (257, 129, 385)]
CONSTANTS = {"block_m": 128, "block_n": 128, "block_k": 128, "group_m": 8, "a_column": 1, "b_column": 1}
POINTERS = {"a": "*fp8e4nv", "b": "*fp8e4nv", "a_scale": "*fp32", "b_scale": "*fp32"}


def interpret() -> dict[str, Any]:
    """Relative error of the kernel by size, and of a layer that runs on it."""
    random = torch.Generator().manual_seed(0)
    errors = {}
    for m, n, k in SIZES:
        a = quantise_rows(torch.randn(m, k, generator=random), "a")
        weight = torch.randn(n, k, generator=random)
        for kind, b in (("blocks", quantise_blocks(weight, "b")), ("tiles", quantise_rows(weight, "b"))):
            expected = dequantise(a) @ dequantise(b).t()
            error = (triton_gemm.multiply(a, b, torch.float32) - expected).norm() / expected.norm()
            errors[f"{m} x {n} x {k}, {kind}"] = float(error)
    return {
        "backend": pick("triton", torch.device("cpu")).name,
        "errors": errors,
        "bf16_error": _bf16_error(),
        "layer": _layer_differences(),
        "quantisers": difference(triton_quantise, torch.device("cpu")),
        "spoilt_scales": _spoilt_scales(),
    }


def _spoilt_scales() -> list[list[bool]]:
    """Which tiles of four count as finite: plain, with infinity, with NaN, plain; both kinds of scales."""
    x = torch.ones(4, 128)
    x[1, 5], x[2, 7] = float("-inf"), float("nan")
    scales = [triton_quantise.rows(x, power_of_two=power_of_two)[1] for power_of_two in (False, True)]
    return [each.isfinite().flatten().tolist() for each in scales]


def _bf16_error() -> float:
    a, b = quantise_rows(torch.ones(3, 128), "a"), quantise_rows(torch.full((2, 128), 1.0), "b")
    result = triton_gemm.multiply(a, b, torch.bfloat16)
    assert result.dtype is torch.bfloat16
    return float((result.float() - 128).abs().max())


def _layer_differences() -> list[float]:
    """Output, input gradient, weight gradient: largest difference between the kernel's and emulation's."""
    results = []
    for backend in ("triton", "emulate"):
        random = torch.Generator().manual_seed(1)
        x = torch.randn(150, 192, generator=random).requires_grad_()
        weight = torch.randn(3, 136, 192, generator=random).requires_grad_()
        result = grouped_linear(x, weight, [70, 0, 80], op="moe.expert", policy=policy("fp8", backend=backend))
        result.backward(torch.randn(150, 136, generator=random).bfloat16())
        results.append((result.float(), x.grad, weight.grad))
    return [float((one - other).abs().max() / other.abs().max()) for one, other in zip(*results, strict=True)]


def compile_for(capability: int) -> dict[str, list[str]]:
    """FP8 instructions in the kernels' machine-near code, by kernel. Needs no GPU."""
    found = {"rows": _conversions("_rows", capability), "columns": _conversions("_columns", capability)}
    for output in ("*bf16", "*fp32"):
        for in_blocks in (True, False):
            kernel = triton.compile(
                _source(output, in_blocks),
                target=GPUTarget("cuda", capability, 32),
                options={"num_warps": triton_gemm.NUM_WARPS, "num_stages": triton_gemm.NUM_STAGES},
            )
            names = re.findall(r"(?:wgmma\.mma_async|mma\.sync|tcgen05\.mma)[\w.:]*", kernel.asm["ptx"])
            found[f"{output} {'blocks' if in_blocks else 'tiles'}"] = sorted(set(names))
    return found


def _conversions(name: str, capability: int) -> list[str]:
    kernel = getattr(triton_quantise, name)
    constants = {"power_of_two": True, "block": 32, "tile": 128}
    types = {"x": "*bf16", "codes": "*fp8e4nv", "scales": "*fp32", "smallest": "fp32"}
    signature = {each: "constexpr" if each in constants else types.get(each, "i32") for each in kernel.arg_names}
    constexprs = {(kernel.arg_names.index(each),): value for each, value in constants.items()}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constexprs)
    options = {"num_warps": triton_quantise.NUM_WARPS, "enable_fp_fusion": False}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    return sorted(set(re.findall(r"cvt[\w.]*e4m3x2[\w.]*", compiled.asm["ptx"])))


def _source(output: str, in_blocks: bool) -> ASTSource:
    kernel = triton_gemm._kernel
    constants = {**CONSTANTS, "b_in_blocks": in_blocks}
    pointers = {**POINTERS, "c": output}
    signature = {name: "constexpr" if name in constants else pointers.get(name, "i32") for name in kernel.arg_names}
    aligned = [*pointers, "m", "n", "k", "a_row", "b_row"]
    return ASTSource(
        fn=kernel,
        signature=signature,
        constexprs={(kernel.arg_names.index(name),): value for name, value in constants.items()},
        attrs={(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )


if __name__ == "__main__":
    print(json.dumps(interpret() if sys.argv[1] == "interpret" else compile_for(int(sys.argv[2]))))
