"""Which part of which tensor: boxes inside whole tensors, and how any box is put together from others. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from training.errors import StorageError

KINDS = ("master", "exp_avg", "exp_avg_sq", "buffer")
"""FP32 master copy, the optimiser's moments, and what is kept but not trained (router biases)."""


@dataclass(frozen=True, slots=True, order=True)
class Box:
    """A rectangular part of one tensor under its Hugging Face name; the whole of it for most."""

    name: str
    kind: str
    full_shape: tuple[int, ...]
    start: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def key(self) -> str:
        """Unique among the boxes of a checkpoint that do not overlap."""
        corner = "" if self.shape == self.full_shape else "@" + ",".join(map(str, self.start))
        return f"{self.kind}/{self.name}{corner}"

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    def overlap(self, other: Box) -> Box | None:
        """The part that both hold, None if there is none. Both lie in the same tensor."""
        start = tuple(map(max, self.start, other.start))
        stop = tuple(
            min(a + n, b + m) for a, n, b, m in zip(self.start, self.shape, other.start, other.shape, strict=True)
        )
        shape = tuple(b - a for a, b in zip(start, stop, strict=True))
        if any(n <= 0 for n in shape):
            return None
        return Box(self.name, self.kind, self.full_shape, start, shape)

    def inside(self, outer: Box) -> tuple[slice, ...]:
        """Index into the values of `outer` that gives this box."""
        return tuple(slice(a - b, a - b + n) for a, b, n in zip(self.start, outer.start, self.shape, strict=True))


def parts_of(wanted: Box, stored: Mapping[tuple[str, str], Sequence[Box]]) -> list[tuple[Box, Box]]:
    """Pairs (stored box, overlap) that together give `wanted`. `stored`: boxes by name and kind, without overlap.

    Raise StorageError when they do not cover it, or when the tensor has another shape.
    """
    candidates = stored.get((wanted.name, wanted.kind), ())
    if not candidates:
        raise StorageError(f"{wanted.name}: no {wanted.kind} stored")
    if candidates[0].full_shape != wanted.full_shape:
        rule = f"stored as {list(candidates[0].full_shape)}, the model needs {list(wanted.full_shape)}"
        raise StorageError(f"{wanted.name}: {rule}")
    found = [(box, part) for box in candidates if (part := box.overlap(wanted)) is not None]
    if sum(part.elements for _, part in found) != wanted.elements:
        raise StorageError(f"{wanted.name}: {wanted.kind} is stored only in part")
    return found
