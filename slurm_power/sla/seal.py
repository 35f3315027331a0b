"""Keeps every reading of a GPU in small sealed blocks: what a quality report is made of, long after the store has
thinned its once-a-second points. A block is one text, about 10 bytes a reading. Pure; light: the node agent loads it.
"""

from __future__ import annotations

import base64
import hashlib
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from slurm_power.sla.sample import COLUMNS, UNKNOWN, GpuMoment, source_number

LAYOUT = 1
MAX_MOMENTS = 800
"""Of one block: even readings that cannot be deflated stay below what InfluxDB takes as one text, 64 KiB."""

_LEVEL = 1  # higher ones are hardly smaller, and slower to read


@dataclass(frozen=True, slots=True)
class SealedBlock:
    begin_wall_s: float
    end_wall_s: float
    samples: int
    columns: str
    """Base64 of the columns, deflated: milliseconds since the begin, then COLUMNS, each byte by byte."""

    sha256: str
    """Of the begin and the columns, before they were deflated."""


class Sealer:
    """Of one GPU."""

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._moments: list[GpuMoment] = []

    def add(self, moment: GpuMoment) -> SealedBlock | None:
        """The block that this reading completes. A clock that was set back begins a new one."""
        full = self._is_full(moment.wall_s)
        block = self.seal() if full else None
        self._moments.append(moment)
        return block

    def seal(self) -> SealedBlock | None:
        """What there is by now; None when that is nothing."""
        moments, self._moments = self._moments, []
        return sealed(moments) if moments else None

    def _is_full(self, wall_s: float) -> bool:
        if not self._moments:
            return False
        age_s = wall_s - self._moments[0].wall_s
        backward = wall_s <= self._moments[-1].wall_s
        return backward or age_s >= self._period_s or len(self._moments) >= MAX_MOMENTS


def sealed(moments: Sequence[GpuMoment]) -> SealedBlock:
    """At least one, in order of time."""
    begin_ms = wall_ms(moments[0].wall_s)
    offsets_ms = [wall_ms(moment.wall_s) - begin_ms for moment in moments]
    parts = [_packed("I", offsets_ms)]
    for name, kind in COLUMNS.items():
        parts.append(_packed(kind, [_value(moment, name, kind) for moment in moments]))
    shuffled = b"".join(part[at::size] for part, size in parts for at in range(size))
    return SealedBlock(
        begin_wall_s=moments[0].wall_s,
        end_wall_s=moments[-1].wall_s,
        samples=len(moments),
        columns=base64.b64encode(zlib.compress(shuffled, _LEVEL)).decode(),
        sha256=digest(begin_ms, shuffled),
    )


def wall_ms(wall_s: float) -> int:
    """Whole milliseconds of a time that a store keeps to the microsecond: the same before and after it was stored."""
    return round(wall_s * 1e6) // 1000


def digest(begin_ms: int, columns: bytes) -> str:
    return hashlib.sha256(struct.pack("<q", begin_ms) + columns).hexdigest()


def _packed(kind: str, values: Sequence[float]) -> tuple[bytes, int]:
    return struct.pack(f"<{len(values)}{kind}", *values), struct.calcsize(f"<{kind}")


def _value(moment: GpuMoment, name: str, kind: str) -> float:
    value = getattr(moment, name)
    if name == "cap_source":
        return source_number(value)
    return UNKNOWN[kind] if value is None else value
