"""Non-finite values in front of an FP8 cast, which would turn infinity into 448: counted, then raised."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from training.errors import NumericsError


@dataclass(slots=True)
class FiniteWatch:
    """On a CPU a bad tile raises at once. On a GPU the count stays there until `raise_if_non_finite`, which costs the
    one device synchronisation of a step; until then infinities become NaN, so that no result can look right."""

    counts: dict[str, Tensor] = field(default_factory=dict)
    """Bad tiles by what was quantised, on the device."""

    deferred_on: frozenset[str] = frozenset({"cuda"})
    """Device types on which a look at the value would wait for the device."""

    def look(self, scale: Tensor, what: str) -> None:
        """`scale`: one a tile, not finite where the tile's amax is not. Raise NumericsError naming `what`, or count."""
        if scale.device.type in self.deferred_on:
            bad = scale.isfinite().logical_not_().sum()
            self.counts[what] = self.counts[what] + bad if what in self.counts else bad
        elif scale.numel() and not _is_finite(scale):
            raise NumericsError(_text({what: int(scale.isfinite().logical_not_().sum())}))

    def raise_if_non_finite(self) -> None:
        """Raise NumericsError naming every operation that met a bad tile since the last call."""
        if not self.counts:
            return
        names, counts = list(self.counts), torch.stack(list(self.counts.values())).tolist()
        self.counts.clear()
        bad = {name: count for name, count in zip(names, counts, strict=True) if count}
        if bad:
            raise NumericsError(_text(bad))


def _is_finite(scale: Tensor) -> bool:
    """`max` keeps NaN; one reduction is cheaper than isfinite().all(). A scale is never negative."""
    return float(scale.max()) < float("inf")


def _text(bad: dict[str, int]) -> str:
    return "not finite before the FP8 cast: " + ", ".join(f"{what} ({count} tiles)" for what, count in bad.items())


WATCH = FiniteWatch()


def raise_if_non_finite() -> None:
    """Once per step, before the optimiser's. Raise NumericsError naming the operations."""
    WATCH.raise_if_non_finite()
