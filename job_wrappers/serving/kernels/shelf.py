"""Room for a model's weights on a CPU, in huge pages: every token reads all of them, and with small pages a fifth of
that time goes into looking up addresses."""

from __future__ import annotations

import mmap

import torch
from torch import Tensor

_PIECE_BYTES = 64 * 1024 * 1024
_LINE_BYTES, _FP32_BYTES = 64, 4


class Shelf:
    """One for each model: a piece of memory is given back when all tensors on it are gone."""

    def __init__(self) -> None:
        self._piece: Tensor | None = None
        self._used = 0

    def room(self, numbers: int) -> Tensor:
        """fp32, beginning at a cache line. Nothing is resident until it is written."""
        lines = -(-numbers * _FP32_BYTES // _LINE_BYTES)
        wanted = lines * _LINE_BYTES // _FP32_BYTES
        if self._piece is None or self._used + wanted > len(self._piece):
            self._piece, self._used = _huge_pages(max(wanted * _FP32_BYTES, _PIECE_BYTES)), 0
        begin, self._used = self._used, self._used + wanted
        return self._piece[begin : begin + numbers]


def _huge_pages(size_bytes: int) -> Tensor:
    memory = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.float32)
