"""The embedding, the head's logits and the cross-entropy, cut over the vocabulary; full logits are never gathered."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from training.parallel.context import Axis, ParallelContext
from training.parallel.counted import all_reduce
from training.parallel.tensor import reduce_exactly

IGNORED = -100
"""Label of a token that does not count in the loss."""


class _Lookup(torch.autograd.Function):
    """Rows of a weight; the gradient goes to FP32 where the weight asks for it."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, weight: Tensor, first: int) -> Tensor:
        here = tokens - first
        outside = (here < 0) | (here >= weight.shape[0])
        here = here.masked_fill(outside, 0)
        # As it is now: a weight with several uses may name another one for each of them.
        ctx.weight, ctx.total = weight, getattr(weight, "fp32_gradient", None)
        ctx.save_for_backward(here, outside)
        return weight[here].masked_fill_(outside.unsqueeze(-1), 0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor | None, None]:
        here, outside = ctx.saved_tensors
        rows = gradient.float().masked_fill(outside.unsqueeze(-1), 0).reshape(-1, gradient.shape[-1])
        total = ctx.total
        if total is None:
            total = torch.zeros(ctx.weight.shape, dtype=torch.float32, device=gradient.device)
        total.index_add_(0, here.reshape(-1), rows)
        return None, total.to(ctx.weight.dtype) if ctx.total is None else None, None


def embed(tokens: Tensor, weight: Tensor, context: ParallelContext) -> Tensor:
    """tokens [...], weight [vocabulary of this rank, hidden] -> [..., hidden], the same on every rank."""
    rows = _Lookup.apply(tokens, weight, context.tensor.rank * weight.shape[0])
    return reduce_exactly(rows, context, name="embedding")


class _CrossEntropy(torch.autograd.Function):
    """Per token, of logits cut over the vocabulary; no rank sees another's logits."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, axis: Axis) -> Tensor:
        logits = logits.float()
        width = logits.shape[-1]
        highest = logits.amax(-1)
        all_reduce(highest, axis, name="loss", operation="max")
        probabilities = (logits - highest.unsqueeze(-1)).exp_()
        sums = torch.stack([probabilities.sum(-1), torch.zeros_like(highest)])
        here = labels - axis.rank * width
        outside = (here < 0) | (here >= width)
        here = here.masked_fill(outside, 0).unsqueeze(-1)
        sums[1] = (logits.gather(-1, here).squeeze(-1) - highest).masked_fill(outside, 0)
        all_reduce(sums, axis, name="loss")
        probabilities /= sums[0].unsqueeze(-1)
        ignored = labels == IGNORED
        ctx.save_for_backward(probabilities, here, outside, ignored)
        return (sums[0].log() - sums[1]).masked_fill(ignored, 0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        probabilities, here, outside, ignored = ctx.saved_tensors
        target = (~outside).to(probabilities.dtype).unsqueeze(-1)
        result = probabilities.scatter_add(-1, here, -target)
        return result * gradient.masked_fill(ignored, 0).unsqueeze(-1), None, None


def cross_entropy(logits: Tensor, labels: Tensor, context: ParallelContext) -> Tensor:
    """logits [..., vocabulary of this rank], labels [...] over the whole vocabulary -> FP32 loss [...] per token.

    Zero where the label is -100. Every rank gets the same.
    """
    return _CrossEntropy.apply(logits, labels, context.tensor)


def mean_cross_entropy(logits: Tensor, labels: Tensor, context: ParallelContext) -> Tensor:
    """The mean over the labels that count, FP32; zero where none does."""
    counted = (labels != IGNORED).sum().clamp(min=1)
    return cross_entropy(logits, labels, context).sum() / counted
