"""A back-end made of one product of two K-major QTensors: what tensor cores want, whoever drives them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from training.fp8.groups import TILE, TokenGroups
from training.fp8.qtensor import QTensor, bytes_of, codes_of

Multiply = Callable[[QTensor, QTensor, torch.dtype], Tensor]
"""a [m, k] with 1x128 tiles, b [n, k] with tiles or 128x128 blocks, k contiguous in both -> a b^T [m, n]; any sizes."""


class TiledWeight(NamedTuple):
    forward: QTensor
    """[groups, out, in]"""

    backward: QTensor
    """[groups, in, out]: the same codes turned, because FP8 tensor cores read along K only."""


@dataclass(frozen=True, slots=True)
class Tiled:
    name: str
    multiply: Multiply

    def weight(self, blocks: QTensor) -> TiledWeight:
        return TiledWeight(blocks, QTensor(_turned(blocks.data), blocks.scale.transpose(-1, -2).contiguous()))

    def forward(self, x: QTensor, weight: TiledWeight, groups: TokenGroups, output: torch.dtype) -> Tensor:
        return self._by_group(x, weight.forward, groups, output)

    def input_gradient(
        self, gradient: QTensor, weight: TiledWeight, groups: TokenGroups, output: torch.dtype
    ) -> Tensor:
        return self._by_group(gradient, weight.backward, groups, output)

    def weight_gradient(self, gradient: QTensor, x: QTensor, groups: TokenGroups) -> Tensor:
        result = torch.zeros(
            len(groups.tokens), gradient.data.shape[1], x.data.shape[1], dtype=torch.float32, device=x.scale.device
        )
        for span, matrix in zip(groups.padded_spans(), result, strict=True):
            if span.stop > span.start:
                matrix.copy_(self.multiply(_along_tokens(gradient, span), _along_tokens(x, span), torch.float32))
        return result

    def _by_group(self, rows: QTensor, weight: QTensor, groups: TokenGroups, output: torch.dtype) -> Tensor:
        pieces = [
            self.multiply(_at(rows, span), _at(weight, index), output)
            for index, span in enumerate(groups.spans())
            if span.stop > span.start
        ]
        if len(pieces) == 1:
            return pieces[0]
        if not pieces:
            return torch.empty(0, weight.data.shape[1], dtype=output, device=weight.scale.device)
        return torch.cat(pieces)


def _at(q: QTensor, index: int | slice) -> QTensor:
    return QTensor(q.data[index], q.scale[index])


def _along_tokens(columns: QTensor, span: slice) -> QTensor:
    """One group of [padded tokens, width] as [width, padded tokens]."""
    first, last = span.start // TILE, -(-span.stop // TILE)
    return QTensor(_turned(columns.data[first * TILE : last * TILE]), columns.scale[first:last].t())


def _turned(codes: Tensor) -> Tensor:
    return codes_of(bytes_of(codes).transpose(-1, -2).contiguous())
