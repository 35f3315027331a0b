"""Which quantisers run: our Triton kernels on a GPU that passes a check, otherwise torch's own operations."""

from __future__ import annotations

import functools
import importlib.util
import logging
from typing import Protocol

import torch
from torch import Tensor

from training.fp8 import plain_quantise
from training.fp8.qtensor import bytes_of

log = logging.getLogger(__name__)

FP8_CAPABILITY = (8, 9)
"""The first whose instructions convert to E4M3."""


class Quantisers(Protocol):
    def rows(self, x: Tensor, *, power_of_two: bool) -> tuple[Tensor, Tensor]: ...

    def columns(self, x: Tensor, *, power_of_two: bool) -> tuple[Tensor, Tensor]: ...


def quantisers(device: torch.device) -> Quantisers:
    return plain_quantise if device.type == "cpu" else _on_gpu(device)


@functools.cache
def _on_gpu(device: torch.device) -> Quantisers:
    reason = _why_not(device)
    if reason is None:
        from training.fp8 import triton_quantise  # Triton is optional, and slow to import

        reason = difference(triton_quantise, device)
        if reason is None:
            return triton_quantise
    log.warning("FP8 tensors are quantised without our kernels (%s)", reason)
    return plain_quantise


def _why_not(device: torch.device) -> str | None:
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < FP8_CAPABILITY:
        return "no CUDA device with FP8"
    return None if importlib.util.find_spec("triton") else "Triton is not installed"


def difference(candidate: Quantisers, device: torch.device) -> str | None:
    """What `candidate` does otherwise than the plain quantisers, bit by bit; None when nothing."""
    x = torch.randn(256, 300, generator=torch.Generator().manual_seed(0)).to(device, torch.bfloat16)
    x[:, :2] *= 2.0**-12  # below the smallest normal code
    x[0] = 0
    for power_of_two in (False, True):
        for name in ("rows", "columns"):
            try:
                codes, scales = getattr(candidate, name)(x, power_of_two=power_of_two)
            except RuntimeError as failure:  # what Triton and CUDA raise
                return f"{name} failed: {str(failure).splitlines()[0]}"
            expected, expected_scales = getattr(plain_quantise, name)(x, power_of_two=power_of_two)
            if not (torch.equal(bytes_of(codes), bytes_of(expected)) and torch.equal(scales, expected_scales)):
                return f"{name} differ"
    return None
