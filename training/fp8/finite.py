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

    def look(self, amax: Tensor, what: str) -> None:
        """`amax`: one value a tile. Raise NumericsError naming `what`, or count."""
        if amax.device.type in self.deferred_on:
            bad = amax.isfinite().logical_not_().sum()
            self.counts[what] = self.counts[what] + bad if what in self.counts else bad
        elif amax.numel() and not _is_finite(amax):
            raise NumericsError(_text({what: int(amax.isfinite().logical_not_().sum())}))

    def raise_if_non_finite(self) -> None:
        """Raise NumericsError naming every operation that met a bad tile since the last call."""
        if not self.counts:
            return
        names, counts = list(self.counts), torch.stack(list(self.counts.values())).tolist()
        self.counts.clear()
        bad = {name: count for name, count in zip(names, counts, strict=True) if count}
        if bad:
            raise NumericsError(_text(bad))


def _is_finite(amax: Tensor) -> bool:
    """`max` keeps NaN; one reduction is cheaper than isfinite().all()."""
    return abs(float(amax.max())) < float("inf")


def _text(bad: dict[str, int]) -> str:
    return "not finite before the FP8 cast: " + ", ".join(f"{what} ({count} tiles)" for what, count in bad.items())


WATCH = FiniteWatch()


def raise_if_non_finite() -> None:
    """Once per step, before the optimiser's. Raise NumericsError naming the operations."""
    WATCH.raise_if_non_finite()
