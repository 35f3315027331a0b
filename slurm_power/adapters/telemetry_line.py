"""InfluxDB's text forms: a point as line protocol, a read as InfluxQL, an answer back as points. Pure.

Line protocol cannot carry a line break in a tag value, nor a backslash at its end, so tag values are written with
`%`, backslash and control characters as %XX; all other characters, Unicode included, stand as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import unquote

import influxdb_client

from slurm_power.errors import Unavailable
from slurm_power.ports.telemetry_rules import clean_text, time_us, wall_s_from_us
from slurm_power.ports.telemetry_store import FieldValue, Point

_NANOSECONDS_PER_US = 1000
_UNSAFE_IN_TAG = re.compile(r"[%\\\x00-\x1f\x7f]")


def encode_tag(value: str) -> str:
    return _UNSAFE_IN_TAG.sub(lambda match: f"%{ord(match[0]):02X}", clean_text(value))


def decode_tag(value: str) -> str:
    return unquote(value)


def line_of(point: Point) -> str:
    """One point (as `storable` left it) in line protocol, nanoseconds."""
    line = influxdb_client.Point(point.measurement).time(time_us(point.wall_s) * _NANOSECONDS_PER_US)
    for name, value in point.tags.items():
        line.tag(name, encode_tag(value))
    for name, field in point.fields.items():
        line.field(name, field)
    return str(line.to_line_protocol())


def select_statement(
    measurement: str,
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
    conditions += [f"{_identifier(name)} = {_literal(encode_tag(value))}" for name, value in tags.items()]
    tail = "" if limit is None else f" LIMIT {limit}"
    return (
        f"SELECT * FROM {_identifier(measurement)} WHERE {' AND '.join(conditions)} GROUP BY * ORDER BY time DESC{tail}"
    )


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


def _identifier(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"
