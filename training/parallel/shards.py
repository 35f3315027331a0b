"""Which tensor of the model's file lies where in a parameter of this rank, and what of it this rank holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from training.errors import require
from training.model.config import BLOCK
from training.parallel.context import Axis


@dataclass(frozen=True, slots=True)
class Part:
    """One tensor of the file. A parameter may hold several, one behind the other."""

    hf_name: str
    shape: tuple[int, ...]
    """Of the whole tensor."""

    where: tuple[int | slice, ...] = ()
    """Index into the parameter (or anything shaped like it) that gives this rank's piece."""

    cut_dim: int | None = None
    """Dimension of the whole tensor that is cut over the tensor axis; None: every rank holds all of it."""

    cut_rank: int = 0
    cut_count: int = 1

    @property
    def piece(self) -> tuple[slice, ...]:
        """Index into the whole tensor that gives this rank's piece."""
        if self.cut_dim is None:
            return ()
        width = self.shape[self.cut_dim] // self.cut_count
        cut = slice(self.cut_rank * width, (self.cut_rank + 1) * width)
        return (*(slice(None) for _ in range(self.cut_dim)), cut)


def mark(parameter: Any, parts: Sequence[Part]) -> None:
    """Say what `parameter` holds; DeepSpeed counts the gradient of a cut parameter on every tensor rank."""
    cuts = {part.cut_dim for part in parts}
    parameter.parts = tuple(parts)
    parameter.hf_name = parts[0].hf_name if len(parts) == 1 else [part.hf_name for part in parts]
    parameter.tp_dim = cuts.pop()
    parameter.tensor_model_parallel = parameter.tp_dim is not None


def cut_width(width: int, axis: Axis, key: str) -> int:
    """This rank's share of `width`. Raise ConfigError unless it is whole FP8 blocks."""
    if axis.size > 1:
        rule = f"cut in {axis.size}, must give multiples of {BLOCK}"
        require(width % (axis.size * BLOCK) == 0, key, width, rule)
    return width // axis.size


def cut_rows(names: Sequence[tuple[str, int]], columns: int, axis: Axis) -> list[Part]:
    """Parts of a weight [sum of this rank's rows, columns] whose tensors lie one under the other."""
    parts, start = [], 0
    cut_dim = 0 if axis.size > 1 else None
    for name, rows in names:
        local = cut_width(rows, axis, name)
        where = (slice(start, start + local),)
        parts.append(Part(name, (rows, columns), where, cut_dim, axis.rank, axis.size))
        start += local
    return parts
