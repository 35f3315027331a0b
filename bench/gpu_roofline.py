"""What one linear layer's forward and backward pass must at least take on a GPU. Pure arithmetic, no device."""

from __future__ import annotations

from dataclasses import dataclass

from training.planning.hardware import Hardware
from training.precision import BF16, FP8, Precision

CODE_BYTES, BF16_BYTES, FP32_BYTES, TILE = 1, 2, 4, 128


@dataclass(frozen=True, slots=True)
class Layer:
    """A weight [outputs, inputs] of DeepSeek-V3 (its config.json) and how many tokens go through it."""

    name: str
    inputs: int
    outputs: int
    tokens: int

    @property
    def flops(self) -> float:
        """Of output, input gradient and weight gradient together."""
        return 6.0 * self.tokens * self.inputs * self.outputs


DEEPSEEK_V3 = (
    ("expert gate and up", 7168, 2 * 2048),
    ("expert down", 2048, 7168),
    ("dense gate and up", 7168, 2 * 18432),
    ("dense down", 18432, 7168),
    ("query up", 1536, 128 * 192),
    ("attention output", 128 * 128, 7168),
)
TOKENS = (4096, 8192)


def layers() -> list[Layer]:
    return [Layer(name, inputs, outputs, tokens) for tokens in TOKENS for name, inputs, outputs in DEEPSEEK_V3]


def feed_forward(tokens: int) -> tuple[Layer, Layer]:
    """A dense SwiGLU block: gate and up in one weight, and down."""
    gate_up, down = (Layer(name, inputs, outputs, tokens) for name, inputs, outputs in DEEPSEEK_V3[2:4])
    return gate_up, down


def product_s(m: float, n: float, k: float, operand_bytes: float, result_bytes: float, hardware: Hardware) -> float:
    """Seconds of [m, k] x [k, n]: the longer of computing at the dense peak and moving everything once."""
    peak = hardware.fp8_flops_per_s if operand_bytes < BF16_BYTES else hardware.bf16_flops_per_s
    if peak is None:
        return float("inf")
    moved = (m * k + k * n) * operand_bytes + m * n * result_bytes
    return max(2.0 * m * n * k / peak, moved / hardware.memory_bytes_per_s)


def products_s(layer: Layer, operand_bytes: float, hardware: Hardware) -> float:
    """The three products, one after the other; the weight gradient leaves in FP32."""
    tokens, inputs, outputs = layer.tokens, layer.inputs, layer.outputs
    return (
        product_s(tokens, outputs, inputs, operand_bytes, BF16_BYTES, hardware)
        + product_s(tokens, inputs, outputs, operand_bytes, BF16_BYTES, hardware)
        + product_s(outputs, inputs, tokens, operand_bytes, FP32_BYTES, hardware)
    )


def quantised_bytes(layer: Layer) -> float:
    """What our quantisers move: x and dy are each read and written twice, along both dimensions; W is read once, its
    codes are written, and turned once. Scales are FP32, one per 128 codes; those of blocks are left out."""
    tile_bytes = CODE_BYTES + FP32_BYTES / TILE
    activations = layer.tokens * (layer.inputs + layer.outputs) * 2 * (BF16_BYTES + tile_bytes)
    return activations + layer.inputs * layer.outputs * (BF16_BYTES + 3 * CODE_BYTES)


def roofline_s(layer: Layer, precision: Precision, hardware: Hardware) -> float:
    """Seconds of a forward and backward pass. Infinite where the hardware has no FP8 units."""
    if precision is FP8:
        return products_s(layer, CODE_BYTES, hardware) + quantised_bytes(layer) / hardware.memory_bytes_per_s
    if precision is BF16:
        return products_s(layer, BF16_BYTES, hardware)
    raise ValueError(f"no roofline for {precision}")


def preset_of(device_name: str) -> str | None:
    """The planner's hardware for a name that CUDA gives, None for a board whose peaks we do not state."""
    for mark, preset in (("H200", "h200-sxm"), ("H100 80GB HBM3", "h100-sxm"), ("A100-SXM", "a100-sxm")):
        if mark in device_name:
            return preset
    return None
