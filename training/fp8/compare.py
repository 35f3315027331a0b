"""How far two results are apart, in the measures that others publish bounds for."""

from __future__ import annotations

from torch import Tensor


def calc_diff(x: Tensor, y: Tensor) -> float:
    """1 - 2<x, y> / (|x|^2 + |y|^2), DeepGEMM's measure: 0 for equal tensors, about half the squared relative error."""
    x, y = x.detach().double(), y.detach().double()
    total = float((x * x + y * y).sum())
    return 0.0 if total == 0.0 else 1.0 - 2.0 * float((x * y).sum()) / total


def sqnr_db(reference: Tensor, x: Tensor) -> float:
    """Signal to quantisation noise, 20 log10(|reference| / |reference - x|); torchao demands more than 20."""
    reference, x = reference.detach().double(), x.detach().double()
    noise = float((reference - x).square().sum())
    if noise == 0.0:
        return float("inf")
    return 10.0 * float((reference.square().sum() / noise).log10())
