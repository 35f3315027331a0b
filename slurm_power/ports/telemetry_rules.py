"""What every store keeps of a point, so that a point reads back the same from each of them.

- Numbers are kept as floats: whole numbers are exact up to 2**53 and compare equal when read back. A store that kept
  two number types would refuse a field that is 300 once and 300.5 later (InfluxDB does).
- None, NaN and infinity mean "unknown": the field is left out. A point with no field left is not kept, and counted.
- A tag with an empty value is no tag. Tag values and texts may hold any character; what is not Unicode becomes "?".
- Names come from our code, never from users: a point with an unusable name is not kept, and counted.
- Time is kept to the microsecond.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import compress
from numbers import Real
from typing import Any

from slurm_power.ports.telemetry_store import FieldValue, Point

MICROSECONDS_PER_S = 1_000_000

_MEASUREMENT = re.compile(r"[a-z][a-z0-9_]{0,63}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_RESERVED_NAMES = frozenset({"time", "name"})
_LATEST_WALL_S = 9.2e9  # InfluxDB keeps int64 nanoseconds: until the year 2262


def storable(point: Point) -> Point | None:
    """The point as a store keeps it; None when nothing of it can be kept."""
    if not 0 <= point.wall_s < _LATEST_WALL_S or not _MEASUREMENT.fullmatch(point.measurement):
        return None
    names = [*point.tags, *point.fields]
    if len(set(names)) < len(names) or not all(map(_usable_name, names)):
        return None
    fields = {name: kept for name, value in point.fields.items() if (kept := _storable_value(value)) is not None}
    if not fields:
        return None
    return Point(point.measurement, wall_s_from_us(time_us(point.wall_s)), fields, clean_tags(point.tags))


def storable_as_is(point: Point) -> bool:
    """Quickly: is there nothing that `storable` would change, but for the time's rounding? False: ask `storable`."""
    fields = point.fields
    values: tuple[Any, ...] = tuple(fields.values())
    shape = _shape(point.measurement, tuple(point.tags), tuple(fields), tuple(map(type, values)))
    return (
        shape is not None
        and 0 <= point.wall_s < _LATEST_WALL_S
        and math.isfinite(sum(compress(values, shape.numbers)))  # one that is not spoils the sum
        and all(map(str.isascii, compress(values, shape.texts)))
        and _clean_tags_already(tuple(point.tags.items()))
    )


def clean_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Sorted by name, without the empty ones."""
    return {name: clean_text(str(tags[name])) for name in sorted(tags) if str(tags[name])}


def clean_text(text: str) -> str:
    """Lone surrogates (undecodable bytes of a user's string) cannot be sent or stored."""
    return text.encode("utf-8", "replace").decode("utf-8")


def has_tags(point_tags: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """An empty wanted value asks for points without that tag."""
    return all(point_tags.get(name, "") == clean_text(value) for name, value in wanted.items())


def time_us(wall_s: float) -> int:
    return round(wall_s * MICROSECONDS_PER_S)


def wall_s_from_us(microseconds: int) -> float:
    return microseconds / MICROSECONDS_PER_S


@lru_cache(maxsize=4096)
def _usable_name(name: str) -> bool:
    return name not in _RESERVED_NAMES and _NAME.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class _Shape:
    """Which values of a point with these names are numbers, which are texts."""

    numbers: tuple[bool, ...]
    texts: tuple[bool, ...]


@lru_cache(maxsize=4096)
def _shape(measurement: str, tags: tuple[str, ...], fields: tuple[str, ...], types: tuple[type, ...]) -> _Shape | None:
    """None: a name or a type needs another look."""
    names = (*tags, *fields)
    usable = len(set(names)) == len(names) and all(map(_usable_name, names))
    if not (fields and usable and set(types) <= {float, str, bool} and _MEASUREMENT.fullmatch(measurement)):
        return None
    return _Shape(tuple(one is float for one in types), tuple(one is str for one in types))


@lru_cache(maxsize=65_536)
def _clean_tags_already(tags: tuple[tuple[str, str], ...]) -> bool:
    return list(tags) == sorted(tags) and all(type(value) is str and value and value.isascii() for _, value in tags)


def _storable_value(value: object) -> FieldValue | None:
    if type(value) is float:  # most are; the other checks cost more
        return value if math.isfinite(value) else None
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return clean_text(value)
    if not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
