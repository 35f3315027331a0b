"""What the GPU bench runs: forward and backward of a layer and of a feed-forward block, and the check of scaled_mm."""

from __future__ import annotations

import torch

from bench.gpu_meter import Step
from bench.gpu_roofline import DEEPSEEK_V3, TOKENS, Layer
from training.fp8 import scaled_mm
from training.fp8.compare import calc_diff
from training.fp8.qtensor import dequantise
from training.fp8.quantise import quantise_blocks, quantise_rows
from training.matmul import linear
from training.model.ffn import swiglu
from training.precision import PrecisionPolicy


def linear_step(layer: Layer, policy: PrecisionPolicy, device: torch.device) -> Step:
    x = _random(layer.tokens, layer.inputs, device).requires_grad_()
    weight, gradient = _weight(layer.outputs, layer.inputs, device), _random(layer.tokens, layer.outputs, device)

    def step() -> None:
        linear(x, weight, op="ffn.linear", policy=policy).backward(gradient)
        x.grad = None

    return step


def feed_forward_step(gate_up: Layer, down: Layer, policy: PrecisionPolicy, device: torch.device) -> Step:
    """SwiGLU; `gate_up` has both halves in one weight."""
    x = _random(gate_up.tokens, gate_up.inputs, device).requires_grad_()
    first, second = (_weight(layer.outputs, layer.inputs, device) for layer in (gate_up, down))
    gradient = _random(down.tokens, down.outputs, device)

    def step() -> None:
        inner = swiglu(linear(x, first, op="ffn.linear", policy=policy))
        linear(inner, second, op="ffn.linear", policy=policy).backward(gradient)
        x.grad = None

    return step


def scaled_mm_differences(device: torch.device) -> dict[str, float] | str:
    """calc_diff of torch's block-wise product against the reference, by weight; or why there is none."""
    reason = scaled_mm.why_not(scaled_mm.device_facts(device))
    if reason is not None:
        return reason
    differences = {}
    for name, inputs, outputs in DEEPSEEK_V3:
        a = quantise_rows(_random(TOKENS[0], inputs, device), "check")
        b = quantise_blocks(_random(outputs, inputs, device), "check")
        expected = dequantise(a) @ dequantise(b).t()
        differences[name] = calc_diff(scaled_mm.multiply(a, b, torch.float32), expected)
    return differences


def _random(rows: int, columns: int, device: torch.device) -> torch.Tensor:
    """Normal numbers: what is multiplied changes the draw, and zeros would draw less (arXiv 2409.18324)."""
    return torch.randn(rows, columns, device=device, dtype=torch.bfloat16)


def _weight(rows: int, columns: int, device: torch.device) -> torch.Tensor:
    """BF16, with the FP32 gradient that training adds to."""
    weight = torch.nn.Parameter(_random(rows, columns, device) * columns**-0.5)
    weight.fp32_gradient = torch.zeros(rows, columns, device=device)
    return weight
