"""Matrix products with an FP32 accumulator, for one or several groups of tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from training.fp8.groups import TokenGroups


def product(left: Tensor, right: Tensor, output: torch.dtype, out: Tensor | None = None) -> Tensor:
    """left [m, k], right [k, n], both BF16 or both FP32 -> [m, n]: the FP32 accumulator, or `output` if a GPU casts it.

    On a CPU a BF16 product is an FP32 one of the same values: several times faster, and FP32 accumulation exactly.
    `out` is FP32, for where the result is FP32 anyway.
    """
    if left.device.type == "cpu" or left.dtype is torch.float32:
        return torch.mm(left.float(), right.float(), out=out)
    if output is left.dtype:
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False  # or partial sums meet in BF16
        return left @ right
    return torch.mm(left, right, out_dtype=torch.float32)


def multiply(rows: Tensor, weight: Tensor, groups: TokenGroups, output: torch.dtype = torch.float32) -> Tensor:
    """rows [tokens, k], weight [groups, n, k] -> [tokens, n]: each group's rows by its own weight."""
    if len(groups.tokens) == 1:
        return product(rows, weight[0].t(), output)
    if rows.device.type != "cpu":
        pieces = (product(rows[span], w.t(), output) for span, w in zip(groups.spans(), weight, strict=True))
        return torch.cat(list(pieces))
    result = torch.empty(rows.shape[0], weight.shape[1])
    for span, matrix in zip(groups.spans(), weight, strict=True):
        product(rows[span], matrix.t(), output, out=result[span])
    return result


def multiply_over_tokens(left: Tensor, right: Tensor, spans: list[slice]) -> Tensor:
    """left [tokens, n], right [tokens, k] -> FP32 [groups, n, k], summed over each group's tokens."""
    fp32 = torch.float32
    if len(spans) == 1:
        return product(left[spans[0]].t(), right[spans[0]], fp32).unsqueeze(0)
    result = torch.empty(len(spans), left.shape[1], right.shape[1], device=left.device)
    for span, matrix in zip(spans, result, strict=True):
        matrix.copy_(product(left[span].t(), right[span], fp32, out=matrix if left.device.type == "cpu" else None))
    return result
