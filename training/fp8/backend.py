"""Who multiplies FP8 operands: emulation anywhere, torch's block-wise `scaled_mm` on Hopper, or our Triton kernel."""

from __future__ import annotations

import functools
import importlib.util
import logging
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from training.fp8 import scaled_mm
from training.fp8.compare import calc_diff
from training.fp8.emulate import Emulate
from training.fp8.groups import TokenGroups
from training.fp8.qtensor import QTensor
from training.fp8.quantise import quantise_blocks, quantise_columns, quantise_rows
from training.fp8.tiled import Tiled

log = logging.getLogger(__name__)

LARGEST_DIFFERENCE = 1e-5
"""calc_diff of a self-check: BF16 rounding gives 1e-6, a wrong scale or a transposed one more than 1e-2."""


class Backend(Protocol):
    """Results are FP32, the accumulator, or already `output` where the device casts it itself."""

    @property
    def name(self) -> str: ...

    def weight(self, blocks: QTensor) -> Any:
        """What this backend keeps of a weight [groups, out, in] for its products."""
        ...

    def forward(self, x: QTensor, weight: Any, groups: TokenGroups, output: torch.dtype) -> Tensor:
        """x [tokens, in] with tiles along `in` -> [tokens, out]"""
        ...

    def input_gradient(self, gradient: QTensor, weight: Any, groups: TokenGroups, output: torch.dtype) -> Tensor:
        """gradient [tokens, out] with tiles along `out` -> [tokens, in]"""
        ...

    def weight_gradient(self, gradient: QTensor, x: QTensor, groups: TokenGroups) -> Tensor:
        """Both with tiles along the tokens -> FP32 [groups, out, in]"""
        ...


class Unusable(Exception):
    """This backend does not work here; the text says why."""


@functools.cache
def pick(name: str, device: torch.device) -> Backend:
    """The backend `name` where it works and passes its self-check, otherwise emulation, with one line in the log.

    "auto" is emulation on a CPU; on a GPU the first that works of scaled_mm and triton.
    """
    return choose(name, device, {"scaled_mm": _scaled_mm, "triton": _triton})


def choose(name: str, device: torch.device, makers: dict[str, Callable[[torch.device], Backend]]) -> Backend:
    """`pick` with the backends to try handed in; a maker raises Unusable."""
    if name == "emulate" or (name == "auto" and device.type == "cpu"):
        return Emulate()
    reasons = []
    for candidate in makers if name == "auto" else [name]:
        try:
            backend = makers[candidate](device)
            self_check(backend, device)
        except Unusable as reason:
            reasons.append(f"{candidate}: {reason}")
            continue
        if reasons:
            log.warning("FP8 products by %s (%s)", backend.name, "; ".join(reasons))
        return backend
    log.warning("FP8 products are emulated (%s)", "; ".join(reasons))
    return Emulate()


def self_check(backend: Backend, device: torch.device) -> None:
    """Compare all three products with emulation. Raise Unusable when one differs or fails.

    The sizes have a part of a tile in every dimension and two groups, one of them empty.
    """
    try:
        results = _products(backend, device)
    except (RuntimeError, ValueError, NotImplementedError) as failure:  # what torch and Triton raise for a device
        raise Unusable(f"self-check failed: {str(failure).splitlines()[0]}") from failure
    for what, result, expected in zip(PRODUCTS, results, _products(Emulate(), device), strict=True):
        difference = calc_diff(result, expected)
        if not difference <= LARGEST_DIFFERENCE:
            raise Unusable(f"self-check failed: its {what} differs from emulation by {difference:.1e}")


PRODUCTS = ("output", "input gradient", "weight gradient")


def _products(backend: Backend, device: torch.device) -> tuple[Tensor, ...]:
    random = torch.Generator().manual_seed(0)
    groups, inputs, outputs = TokenGroups((200, 0)), 656, 272
    x = torch.randn(200, inputs, generator=random).to(device)
    gradient = torch.randn(200, outputs, generator=random).to(device)
    weight = backend.weight(quantise_blocks(torch.randn(2, outputs, inputs, generator=random).to(device), "self-check"))
    bf16, rows, columns = torch.bfloat16, quantise_rows, quantise_columns
    return (
        backend.forward(rows(x, "self-check"), weight, groups, bf16),
        backend.input_gradient(rows(gradient, "self-check"), weight, groups, bf16),
        backend.weight_gradient(columns(gradient, groups, "self-check"), columns(x, groups, "self-check"), groups),
    )


def _scaled_mm(device: torch.device) -> Backend:
    reason = scaled_mm.why_not(scaled_mm.device_facts(device))
    if reason is not None:
        raise Unusable(reason)
    return Tiled("scaled_mm", scaled_mm.multiply)


def _triton(device: torch.device) -> Backend:
    if importlib.util.find_spec("triton") is None:
        raise Unusable("Triton is not installed")
    from training.fp8 import triton_gemm  # Triton is optional, and slow to import

    if device.type != "cuda" and not triton_gemm.interpreted():
        raise Unusable("no CUDA device")
    return Tiled("triton", triton_gemm.multiply)
