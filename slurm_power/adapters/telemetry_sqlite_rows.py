"""Points as rows of the SQLite store and back.

Numbers of a point are one blob of doubles; which names they belong to is its shape, kept once for all rows of that
shape. Texts and truths are JSON beside it. That is a third of the room of JSON, and four times as fast.
"""

from __future__ import annotations

import json
import sqlite3
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import compress
from operator import itemgetter

from slurm_power.ports.telemetry_rules import clean_text, time_us, wall_s_from_us
from slurm_power.ports.telemetry_store import FieldValue, Point

SCHEMA_VERSION = 2
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS series (
    id INTEGER PRIMARY KEY,
    measurement TEXT NOT NULL,
    tags TEXT NOT NULL,  -- JSON object, keys sorted
    UNIQUE (measurement, tags)
);
CREATE TABLE IF NOT EXISTS shapes (
    id INTEGER PRIMARY KEY,
    names TEXT NOT NULL UNIQUE  -- JSON array: what the numbers of a sample are called
);
CREATE TABLE IF NOT EXISTS samples (
    series INTEGER NOT NULL,
    time_us INTEGER NOT NULL,  -- microseconds since the epoch
    shape INTEGER NOT NULL,
    numbers BLOB NOT NULL,  -- doubles, little-endian
    others TEXT,  -- JSON object: texts and truths
    PRIMARY KEY (series, time_us)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS thinned (
    series INTEGER NOT NULL,
    bucket_s REAL NOT NULL,
    until_us INTEGER NOT NULL,  -- up to here one sample stands for each bucket
    PRIMARY KEY (series, bucket_s)
) WITHOUT ROWID;
PRAGMA user_version = {SCHEMA_VERSION};
"""

Row = tuple[int, int, int, bytes, str | None]
"""series, time_us, shape, numbers, others"""

_Kind = tuple[tuple[str, ...], tuple[type, ...]]
_Pack = Callable[[Mapping[str, FieldValue]], tuple[int, bytes, str | None]]


class RowWriter:
    """Remembers ids from transaction to transaction, as long as nobody else has written to the file."""

    def __init__(self) -> None:
        self._connection: sqlite3.Connection | None = None
        self._data_version = -1
        self._series: dict[tuple[str, tuple[tuple[str, str], ...]], int] = {}
        self._packers: dict[_Kind, _Pack] = {}

    def forget(self) -> None:
        self._series.clear()
        self._packers.clear()
        self._connection = None

    def insert(self, connection: sqlite3.Connection, points: Iterable[Point]) -> None:
        """What is there already is merged, the new value wins. Call `forget` when the transaction fails."""
        self._check(connection)
        rows = [self._row(connection, point) for point in points]
        rows.sort(key=itemgetter(0, 1))  # neighbours share a page; of one time, the order stays
        statement = "INSERT INTO samples VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
        if connection.executemany(statement, rows).rowcount < len(rows):
            self._merge(connection, rows)

    def _check(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        if connection is not self._connection or version != self._data_version:
            self.forget()
            self._connection, self._data_version = connection, version

    def _row(self, connection: sqlite3.Connection, point: Point) -> Row:
        key = (point.measurement, tuple(point.tags.items()))
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = _series_id(connection, point.measurement, as_json(point.tags))
        fields = point.fields
        kind = (tuple(fields), tuple(map(type, fields.values())))
        pack = self._packers.get(kind)
        if pack is None:
            pack = self._packers[kind] = self._packer(connection, *kind)
        return (series, time_us(point.wall_s), *pack(fields))

    def _packer(self, connection: sqlite3.Connection, names: tuple[str, ...], types: tuple[type, ...]) -> _Pack:
        is_number = tuple(one is float for one in types)
        numbers = list(compress(names, is_number))
        is_other = tuple(not one for one in is_number)
        others = tuple(compress(names, is_other))
        shape, pack = shape_id(connection, numbers), struct.Struct(f"<{len(numbers)}d").pack

        def row_of(fields: Mapping[str, FieldValue]) -> tuple[int, bytes, str | None]:
            text = _others_text(others, tuple(compress(fields.values(), is_other))) if others else None
            return shape, pack(*compress(fields.values(), is_number)), text

        return row_of

    def _merge(self, connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
        shapes = read_shapes(connection)
        for row in rows:
            found = connection.execute(
                "SELECT shape, numbers, others FROM samples WHERE series = ? AND time_us = ?", row[:2]
            ).fetchone()
            if found == row[2:]:
                continue
            fields = {**fields_of(shapes, *found), **fields_of(shapes, *row[2:])}
            replace_row(connection, row[0], row[1], fields)
            shapes = read_shapes(connection)


def replace_row(connection: sqlite3.Connection, series: int, at_us: int, fields: Mapping[str, FieldValue]) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO samples VALUES (?, ?, ?, ?, ?)", _packed(connection, series, at_us, fields)
    )


def _packed(connection: sqlite3.Connection, series: int, at_us: int, fields: Mapping[str, FieldValue]) -> Row:
    numbers = [name for name, value in fields.items() if isinstance(value, float | int) and not isinstance(value, bool)]
    others = {name: value for name, value in fields.items() if name not in numbers}
    blob = struct.pack(f"<{len(numbers)}d", *(fields[name] for name in numbers))
    return series, at_us, shape_id(connection, numbers), blob, as_json(others) if others else None


class RowBook:
    """Reads and replaces rows within one transaction; knows its shapes by heart."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._names = read_shapes(connection)
        self._packers: dict[tuple[str, ...], tuple[int, struct.Struct]] = {}
        self._others: dict[str, dict[str, FieldValue]] = {}

    def read(self, series: int, begin_us: int, end_us: int, *, limit: int) -> list[tuple[int, dict[str, FieldValue]]]:
        rows = self._connection.execute(
            "SELECT time_us, shape, numbers, others FROM samples WHERE series = ? AND time_us >= ? AND time_us < ?"
            " ORDER BY time_us LIMIT ?",
            (series, begin_us, end_us, limit),
        )
        return [(at_us, self._fields(*rest)) for at_us, *rest in rows]

    def replace(
        self, series: int, begin_us: int, end_us: int, rows: Iterable[tuple[int, Mapping[str, FieldValue]]]
    ) -> None:
        """All rows of these times by others."""
        self._connection.execute(
            "DELETE FROM samples WHERE series = ? AND time_us >= ? AND time_us < ?", (series, begin_us, end_us)
        )
        packed = [(series, at_us, *self._pack(fields)) for at_us, fields in rows]
        self._connection.executemany("INSERT INTO samples VALUES (?, ?, ?, ?, ?)", packed)

    def _fields(self, shape: int, numbers: bytes, others: str | None) -> dict[str, FieldValue]:
        names = self._names[shape]
        fields: dict[str, FieldValue] = dict(zip(names, struct.unpack(f"<{len(names)}d", numbers), strict=True))
        if others is not None:
            if others not in self._others:
                self._others[others] = json.loads(others)
            fields.update(self._others[others])
        return fields

    def _pack(self, fields: Mapping[str, FieldValue]) -> tuple[int, bytes, str | None]:
        kind = tuple(name for name, value in fields.items() if type(value) is float)
        known = self._packers.get(kind)
        if known is None:
            known = self._packers[kind] = shape_id(self._connection, kind), struct.Struct(f"<{len(kind)}d")
        shape, packer = known
        text = as_json({name: fields[name] for name in fields if name not in kind}) if len(fields) > len(kind) else None
        return shape, packer.pack(*[fields[name] for name in kind]), text


def shape_id(connection: sqlite3.Connection, names: Sequence[str]) -> int:
    text = json.dumps(names, separators=(",", ":"))
    connection.execute("INSERT INTO shapes (names) VALUES (?) ON CONFLICT DO NOTHING", (text,))
    (found,) = connection.execute("SELECT id FROM shapes WHERE names = ?", (text,)).fetchone()
    return int(found)


def read_shapes(connection: sqlite3.Connection) -> dict[int, list[str]]:
    return {number: json.loads(names) for number, names in connection.execute("SELECT id, names FROM shapes")}


def fields_of(
    shapes: Mapping[int, Sequence[str]], shape: int, numbers: bytes, others: str | None
) -> dict[str, FieldValue]:
    names = shapes[shape]
    fields: dict[str, FieldValue] = dict(zip(names, struct.unpack(f"<{len(names)}d", numbers), strict=True))
    return {**fields, **json.loads(others)} if others else fields


def matching_series(connection: sqlite3.Connection, measurement: str, tags: Mapping[str, str]) -> list[tuple[int, str]]:
    """Tags are looked for in their JSON text: quotes inside a value are escaped there, so `"name":"value"` is only
    ever a tag. (SQLite's own JSON functions end a text at a NUL character.)"""
    query, parts = "SELECT id, tags FROM series WHERE measurement = ?", []
    for name, value in tags.items():
        query += " AND instr(tags, ?)" if value else " AND NOT instr(tags, ?)"
        parts.append(as_json({name: clean_text(value)})[1:-1] if value else f"{json.dumps(name)}:")
    return connection.execute(query, (measurement, *parts)).fetchall()


def points_of(
    connection: sqlite3.Connection,
    measurement: str,
    series: int,
    tags: Mapping[str, str],
    window: tuple[int, int, int],
) -> list[Point]:
    """The newest `window[2]` points (all if negative) since window[0] and before window[1]."""
    shapes = read_shapes(connection)
    rows = connection.execute(
        "SELECT time_us, shape, numbers, others FROM samples WHERE series = ? AND time_us >= ? AND time_us < ?"
        " ORDER BY time_us DESC LIMIT ?",
        (series, *window),
    )
    return [Point(measurement, wall_s_from_us(at_us), fields_of(shapes, *rest), tags) for at_us, *rest in rows]


def _series_id(connection: sqlite3.Connection, measurement: str, tags: str) -> int:
    connection.execute(
        "INSERT INTO series (measurement, tags) VALUES (?, ?) ON CONFLICT DO NOTHING", (measurement, tags)
    )
    row = connection.execute("SELECT id FROM series WHERE measurement = ? AND tags = ?", (measurement, tags)).fetchone()
    return int(row[0])


@lru_cache(maxsize=1024)
def _others_text(names: tuple[str, ...], values: tuple[FieldValue, ...]) -> str:
    """Few differ: of a GPU, who asked for its cap."""
    return as_json(dict(zip(names, values, strict=True)))


def as_json(values: Mapping[str, object]) -> str:
    return json.dumps(values, sort_keys=True, separators=(",", ":"))
