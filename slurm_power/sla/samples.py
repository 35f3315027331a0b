"""Readings of one GPU as columns of numbers, from sealed blocks or from single points. Pure."""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slurm_power.sla.sample import COLUMNS, UNKNOWN, GpuMoment, source_number
from slurm_power.sla.seal import LAYOUT, MAX_MOMENTS, digest, wall_ms

Column = NDArray[Any]

_ROW = np.dtype([("wall_ms", "<i8"), *((name, f"<{np.dtype(kind).str[1:]}") for name, kind in COLUMNS.items())])
"""One reading as it is hashed: 61 bytes."""


@dataclass(frozen=True, slots=True)
class Samples:
    """In order of time, no time twice. Unknown is NaN or -1 (sla/sample.py)."""

    wall_ms: NDArray[np.int64]
    columns: Mapping[str, Column]

    def __len__(self) -> int:
        return int(self.wall_ms.size)

    def __getitem__(self, name: str) -> Column:
        return self.columns[name]

    def wall_s(self) -> NDArray[np.float64]:
        return self.wall_ms / 1000.0

    def where(self, mask: NDArray[np.bool_]) -> Samples:
        return Samples(self.wall_ms[mask], {name: column[mask] for name, column in self.columns.items()})

    def rows(self) -> bytes:
        """What is hashed: reading after reading, so that it does not matter how they were cut into chunks."""
        table = np.empty(len(self), _ROW)
        table["wall_ms"] = self.wall_ms
        for name, column in self.columns.items():
            table[name] = column
        return table.tobytes()


def no_samples() -> Samples:
    return Samples(np.empty(0, np.int64), {name: np.empty(0, kind) for name, kind in COLUMNS.items()})


def joined(parts: Sequence[Samples]) -> Samples:
    """In order of time; of two readings of one millisecond the first part's stays."""
    if not parts:
        return no_samples()
    times = np.concatenate([part.wall_ms for part in parts])
    columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in COLUMNS}
    if np.all(np.diff(times) > 0):
        return Samples(times, columns)
    _, first = np.unique(times, return_index=True)
    return Samples(times[first], {name: column[first] for name, column in columns.items()})


def from_moments(moments: Sequence[GpuMoment]) -> Samples:
    times = np.array([wall_ms(moment.wall_s) for moment in moments], np.int64)
    columns = {name: _column(moments, name, kind) for name, kind in COLUMNS.items()}
    return joined([Samples(times, columns)])


@dataclass(frozen=True, slots=True)
class OpenBlock:
    """A sealed block that is what was sealed."""

    begin_ms: int
    count: int
    columns: bytes  # as in the seal: column after column, each byte by byte

    @property
    def end_ms(self) -> int:
        """The last reading's offset: its four bytes stand a whole column apart."""
        last = bytes(self.columns[self.count * place - 1] for place in (1, 2, 3, 4))
        return self.begin_ms + int.from_bytes(last, "little")

    @property
    def step_ms(self) -> float:
        return (self.end_ms - self.begin_ms) / max(1, self.count - 1)


def opened(begin_wall_s: float, fields: Mapping[str, Any]) -> OpenBlock | None:
    """None when it is not of this layout or is not what was sealed."""
    try:
        count = int(fields["samples"])
        if fields["layout"] != LAYOUT or not 0 < count <= MAX_MOMENTS:
            return None
        size = count * _ROW_BYTES
        columns = zlib.decompressobj().decompress(base64.b64decode(fields["columns"], validate=True), size + 1)
    except (KeyError, TypeError, ValueError, binascii.Error, zlib.error):
        return None
    begin_ms = wall_ms(begin_wall_s)
    if len(columns) != size or digest(begin_ms, columns) != fields.get("sha256"):
        return None
    return OpenBlock(begin_ms, count, columns)


def unsealed(blocks: Sequence[OpenBlock]) -> Samples:
    """The readings of all of them in order of time. Blocks of one size, which most are, are read at once."""
    sizes = sorted({block.count for block in blocks})
    return joined([_unshuffled([block for block in blocks if block.count == size], size) for size in sizes])


_KINDS = {"offset_ms": "I", **COLUMNS}
_ROW_BYTES = sum(struct.calcsize(f"<{kind}") for kind in _KINDS.values())


def _unshuffled(blocks: Sequence[OpenBlock], count: int) -> Samples:
    """Of blocks of `count` readings each."""
    whole = np.frombuffer(b"".join(block.columns for block in blocks), np.uint8).reshape(len(blocks), -1)
    columns, at = {}, 0
    for name, kind in _KINDS.items():
        size = struct.calcsize(f"<{kind}")
        planes = whole[:, at : at + count * size].reshape(len(blocks), size, count)
        values = np.ascontiguousarray(planes.transpose(0, 2, 1)).reshape(-1)
        columns[name] = values.view(f"<{np.dtype(kind).str[1:]}")
        at += count * size
    begins = np.repeat(np.array([block.begin_ms for block in blocks], np.int64), count)
    return Samples(begins + columns.pop("offset_ms"), columns)


def _column(moments: Sequence[GpuMoment], name: str, kind: str) -> Column:
    values = [getattr(moment, name) for moment in moments]
    if name == "cap_source":
        return np.array([source_number(value) for value in values], kind)
    return np.array([UNKNOWN[kind] if value is None else value for value in values], kind)
