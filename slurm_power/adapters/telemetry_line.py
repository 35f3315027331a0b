"""InfluxDB's text forms: a point as line protocol, a read as InfluxQL, an answer back as points. Pure.

Line protocol cannot carry a line break in a tag value, nor a backslash at its end, so tag values are written with
`%`, backslash and control characters as %XX; all other characters, Unicode included, stand as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from urllib.parse import unquote

from slurm_power.errors import Unavailable
from slurm_power.ports.telemetry_rules import clean_text, time_us, wall_s_from_us
from slurm_power.ports.telemetry_store import FieldValue, Point

_NANOSECONDS_PER_US = 1000
_TAG_ESCAPES = str.maketrans({" ": "\\ ", ",": "\\,", "=": "\\="})
_TEXT_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"'})
_UNSAFE_IN_TAG = re.compile(r"[%\\\x00-\x1f\x7f]")


def encode_tag(value: str) -> str:
    return _UNSAFE_IN_TAG.sub(lambda match: f"%{ord(match[0]):02X}", clean_text(value))


def decode_tag(value: str) -> str:
    return unquote(value)


def line_of(point: Point) -> str:
    """One point (as `storable` left it) in line protocol, nanoseconds. Names need no escapes: the rules see to that."""
    fields = ",".join(
        [
            f"{name}={value!r}" if type(value) is float else f"{name}={_field_text(value)}"
            for name, value in point.fields.items()
        ]
    )
    head = _head(point.measurement, tuple(point.tags.items()))
    return f"{head} {fields} {time_us(point.wall_s) * _NANOSECONDS_PER_US}"


@lru_cache(maxsize=65_536)
def _head(measurement: str, tags: tuple[tuple[str, str], ...]) -> str:
    """Measurement and tags: the same for all points of a series."""
    parts = [f"{name}={encode_tag(value).translate(_TAG_ESCAPES)}" for name, value in tags]
    return ",".join([measurement, *parts])


def _field_text(value: FieldValue) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value.translate(_TEXT_ESCAPES)}"'
    return repr(float(value))


def select_statement(
    measurements: Sequence[str],
    *,
    since_us: int,
    until_us: int | None,
    tags: Mapping[str, str],
    limit: int | None,
) -> str:
    """`GROUP BY *` keeps tags apart from fields; with it LIMIT counts per series. The newest points come first."""
    conditions = [f"time >= {since_us * _NANOSECONDS_PER_US}"]
    if until_us is not None:
        conditions.append(f"time < {until_us * _NANOSECONDS_PER_US}")
    conditions += [f"{identifier(name)} = {_literal(encode_tag(value))}" for name, value in tags.items()]
    tail = "" if limit is None else f" LIMIT {limit}"
    names = ", ".join(map(identifier, measurements))
    return f"SELECT * FROM {names} WHERE {' AND '.join(conditions)} GROUP BY * ORDER BY time DESC{tail}"


def oldest_statement(measurement: str) -> str:
    return f"SELECT * FROM {identifier(measurement)} ORDER BY time ASC LIMIT 1"


def delete_statement(measurement: str, *, since_us: int, until_us: int) -> str:
    since_ns, until_ns = since_us * _NANOSECONDS_PER_US, until_us * _NANOSECONDS_PER_US
    return f"DELETE FROM {identifier(measurement)} WHERE time >= {since_ns} AND time < {until_ns}"


def policies_of_answer(text: str) -> list[str]:
    """Of SHOW RETENTION POLICIES: name and duration of each. Raise Unavailable for what cannot be read."""
    try:
        (result,) = json.loads(text)["results"]
        if "error" in result:
            raise Unavailable(str(result["error"]))
        found = []
        for series in result.get("series", []):
            rows = [dict(zip(series["columns"], row, strict=True)) for row in series.get("values", [])]
            found += [f"{row['name']}: {_kept(str(row['duration']))}" for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError) as cause:
        raise Unavailable(f"unreadable answer {text[:200]!r}") from cause
    return found


def _kept(duration: str) -> str:
    return "for ever" if duration in ("0s", "0") else duration


def points_of_answer(measurement: str, documents: Iterable[str]) -> list[Point]:
    """Every point of a chunked /query answer, one JSON document per line, times in nanoseconds.
    Raise Unavailable for an error in the answer or one that cannot be read."""
    found: list[Point] = []
    for document in documents:
        if document.strip():
            found += _points_of_document(measurement, document)
    return found


def _points_of_document(measurement: str, document: str) -> Iterator[Point]:
    try:
        answer = json.loads(document)
        results = answer.get("results", [])
        errors = [part["error"] for part in [answer, *results] if "error" in part]
        series = [one for result in results for one in result.get("series", [])]
        points = [point for one in series for point in _points_of_series(measurement, one)]
    except (ValueError, KeyError, TypeError, AttributeError) as cause:
        raise Unavailable(f"unreadable answer {document[:200]!r}") from cause
    if errors:
        raise Unavailable(str(errors[0]))
    yield from points


def _points_of_series(measurement: str, series: Mapping[str, object]) -> Iterator[Point]:
    columns, rows, tags = series["columns"], series.get("values", []), series.get("tags") or {}
    if not isinstance(columns, list) or not isinstance(rows, list) or not isinstance(tags, dict):
        raise ValueError("not a series")
    kept_tags = {name: decode_tag(tags[name]) for name in sorted(tags) if tags[name]}
    for row in rows:
        values = dict(zip(columns, row, strict=True))
        at_us = values.pop("time") // _NANOSECONDS_PER_US
        fields = {name: _field(value) for name, value in values.items() if value is not None}
        if fields:
            yield Point(measurement, wall_s_from_us(at_us), fields, kept_tags)


def _field(value: object) -> FieldValue:
    """JSON shows the number 1.0 as 1; we only ever write floats."""
    if isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        return float(value)
    raise ValueError(f"not a field value: {value!r}")


def identifier(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"
