"""The weights of one rank: its shares, read from a source, and merged where one product serves several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from job_wrappers.serving.kernels.packed_matrix import PackedMatrix, packed
from job_wrappers.serving.kernels.shelf import Shelf
from job_wrappers.serving.models.decoder_config import FP8_BLOCK
from job_wrappers.serving.models.linear import AnyLinear, Linear, ScaledLinear
from job_wrappers.serving.models.shard_reader import SCALE, Shape, Source
from training.fp8.qtensor import QTensor, bytes_of, codes_of, dequantise

ALL = slice(None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One of the weights that are merged into a product: ours are the `rows` (None: all) of `total`, in this `order`
    (None: theirs)."""

    name: str
    total: int
    rows: slice | None = None
    order: Tensor | None = None


class Weights:
    """Tensors land on the source's device in `dtype`; FP8 codes and their scales stay as they are stored."""

    def __init__(self, source: Source, dtype: torch.dtype) -> None:
        self.source, self.dtype = source, dtype
        self.kept: list[Tensor] = []
        self._packed_bytes = 0
        self._shelf = Shelf()

    def tensor(
        self, name: str, shape: Shape, where: tuple[slice, ...] | None = None, *, dtype: torch.dtype | None = None
    ) -> Tensor:
        return self.keep(self.read(name, shape, where, dtype=dtype))

    def read(
        self, name: str, shape: Shape, where: tuple[slice, ...] | None = None, *, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Not kept yet."""
        return self.source.read(name, shape, where or (ALL,) * len(shape)).to(dtype or self.dtype)

    def product(self, weight: Tensor, bias: Tensor | None = None) -> Linear | PackedMatrix:
        """With a weight that is not kept yet: on a CPU a packed copy is kept instead of it."""
        matrix = packed(weight, bias, room=self._shelf.room) if self.source.device.type == "cpu" else None
        if matrix is None:
            return Linear(self.keep(weight), bias)
        self._packed_bytes += weight.nbytes
        return matrix

    def linear(
        self,
        parts: Sequence[Part],
        inputs: int,
        columns: slice = ALL,
        *,
        bias: bool = False,
        keep_bias: bool = True,
    ) -> AnyLinear:
        """The parts' outputs side by side.

        `columns`: our share of the inputs. The shares' results are summed, so only one of them may keep the bias.
        """
        offset = torch.cat([self._bias(part) for part in parts]) if bias else None
        offset = self.keep(offset) if offset is not None and keep_bias else None
        pieces = [self._piece(part, inputs, columns) for part in parts]
        if all(isinstance(piece, QTensor) for piece in pieces):
            codes = torch.cat([bytes_of(piece.data) for piece in pieces if isinstance(piece, QTensor)])
            scale = torch.cat([piece.scale for piece in pieces if isinstance(piece, QTensor)])
            return ScaledLinear(self.keep(codes_of(codes)), self.keep(scale), offset)
        plain = [dequantise(piece) if isinstance(piece, QTensor) else piece for piece in pieces]
        return self.product(torch.cat([piece.to(self.dtype) for piece in plain]), offset)

    def dense(self, part: Part, inputs: int) -> Tensor:
        """As numbers, also where it is stored as codes; not kept yet."""
        piece = self._piece(part, inputs, ALL)
        values = dequantise(piece) if isinstance(piece, QTensor) else piece
        return values.to(self.dtype)

    def _bias(self, part: Part) -> Tensor:
        bias = self.read(f"{part.name}.bias", (part.total,), (part.rows or ALL,))
        return bias if part.order is None else bias[part.order]

    def _piece(self, part: Part, inputs: int, columns: slice) -> Tensor | QTensor:
        """Codes with a scale for each row and 128 columns; numbers when our share cuts through a block of columns."""
        weight, scale, shape = f"{part.name}.weight", f"{part.name}.weight{SCALE}", (part.total, inputs)
        rows, order = part.rows or ALL, ALL if part.order is None else part.order
        if not self.source.has(scale):
            return self.source.read(weight, shape, (rows, columns))[order]
        blocks = (-(-shape[0] // FP8_BLOCK), -(-shape[1] // FP8_BLOCK))
        by_row = self.source.read(scale, blocks, (ALL, ALL)).float().repeat_interleave(FP8_BLOCK, dim=0)[: shape[0]]
        by_row = by_row[rows][order]
        begin, end, _ = columns.indices(inputs)
        if begin % FP8_BLOCK == 0 and (end % FP8_BLOCK == 0 or end == inputs):
            codes = bytes_of(self.source.read(weight, shape, (rows, columns)))[order]
            return QTensor(codes_of(codes), by_row[:, begin // FP8_BLOCK : -(-end // FP8_BLOCK)])
        codes = bytes_of(self.source.read(weight, shape, (rows, ALL)))[order]
        return dequantise(QTensor(codes_of(codes), by_row))[:, columns]

    @property
    def bytes(self) -> int:
        kept: int = sum(tensor.nbytes for tensor in self.kept)
        return self._packed_bytes + kept

    def keep(self, tensor: Tensor) -> Tensor:
        """On the source's device, in one piece; counted, and moved when the model sleeps."""
        kept = tensor.contiguous().to(self.source.device)
        self.kept.append(kept)
        return kept
