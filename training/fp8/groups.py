"""Rows of a token matrix that belong together: one group for a linear layer, one per expert for a grouped one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

TILE = 128


def padded(size: int) -> int:
    """The next multiple of 128."""
    return -(-size // TILE) * TILE


@dataclass(frozen=True, slots=True)
class TokenGroups:
    """Groups lie one behind the other. For tiles along the tokens each is padded with zeros to a multiple of 128, so
    that no tile holds tokens of two groups and a group's codes do not depend on its neighbours."""

    tokens: tuple[int, ...]

    @classmethod
    def of(cls, tokens: Iterable[int]) -> TokenGroups:
        return cls(tuple(int(count) for count in tokens))

    @property
    def aligned(self) -> bool:
        return all(count % TILE == 0 for count in self.tokens)

    def spans(self) -> list[slice]:
        """Rows of each group."""
        return self._slices(self.tokens)

    def padded_spans(self) -> list[slice]:
        """Rows of each group, without its padding, after `pad`."""
        return self._slices([padded(count) for count in self.tokens])

    def pad(self, rows: Tensor) -> Tensor:
        """rows [tokens, width] -> [padded tokens, width]; `rows` itself where nothing is missing."""
        if self.aligned:
            return rows
        if len(self.tokens) == 1:
            return functional.pad(rows, (0, 0, 0, padded(rows.shape[0]) - rows.shape[0]))
        wide = rows.new_zeros(sum(padded(count) for count in self.tokens), rows.shape[1])
        for here, there in zip(self.spans(), self.padded_spans(), strict=True):
            wide[there] = rows[here]
        return wide

    def _slices(self, strides: Iterable[int]) -> list[slice]:
        result, start = [], 0
        for count, stride in zip(self.tokens, strides, strict=True):
            result.append(slice(start, start + count))
            start += stride
        return result
