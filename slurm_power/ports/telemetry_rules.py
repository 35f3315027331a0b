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
from functools import lru_cache
from numbers import Real

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
