"""Several samples of one series as one: what each field becomes. Pure.

The one stands at the time of the last of them, so that a counter keeps its exact value at its exact time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

Value = float | int | str | bool
Fields = Mapping[str, Value]

SAMPLES = "samples"
"""The field of a merged point that says how many samples it stands for."""

THINNED_MEASUREMENTS = ("gpu", "node")
"""Those that are written at a high rate. All others are kept as they are until they are too old."""

_MEANS_END = ("_watts", "_mhz", "_fraction")
_LIMITS = frozenset({"cap_watts", "target_watts"})


def bucket_of(wall_us: int, *, bucket_s: float) -> int:
    return wall_us // round(bucket_s * 1e6)


def merged_fields(rows: Sequence[Fields]) -> dict[str, Value]:
    """Of samples in time order: levels become means, temperatures their highest, bit masks the bits of all; counters,
    limits and texts keep the last value. A field that only some samples have is taken from those."""
    counts = [_count(row) for row in rows]
    known: dict[str, list[tuple[Value, float]]] = {}
    for row, count in zip(rows, counts, strict=True):
        for name, value in row.items():
            if name != SAMPLES:
                known.setdefault(name, []).append((value, count))
    result: dict[str, Value] = {name: _way_of(name, values[-1][0])(values) for name, values in known.items()}
    return {**result, SAMPLES: sum(counts)}


_Counted = Sequence[tuple[Value, float]]


def _count(row: Fields) -> float:
    count = row.get(SAMPLES, 1.0)
    return float(count) if isinstance(count, int | float) else 1.0


def _way_of(name: str, value: Value) -> Callable[[_Counted], Value]:
    if isinstance(value, str | bool) or name in _LIMITS:
        return _last
    if name == "throttle_reasons":
        return _all_bits
    if name.endswith("_celsius"):
        return _highest
    return _mean if name.endswith(_MEANS_END) else _last


def _last(values: _Counted) -> Value:
    return values[-1][0]


def _highest(values: _Counted) -> Value:
    return max(float(value) for value, _ in values)


def _all_bits(values: _Counted) -> Value:
    bits = 0
    for value, _ in values:
        bits |= int(value)
    return float(bits)


def _mean(values: _Counted) -> Value:
    total = sum(count for _, count in values)
    return sum(float(value) * count for value, count in values) / total
