"""A load as others store it: a table (CSV) of time and power, of any unit, with gaps and doubled hours. Pure."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

import numpy as np
import numpy.typing as npt

from slurm_power.errors import ConfigError

Floats = npt.NDArray[np.float64]
Parser = Callable[[str], float | None]

WATTS_PER_UNIT = {"w": 1.0, "kw": 1e3, "mw": 1e6, "gw": 1e9}


@dataclass(frozen=True, slots=True)
class LoadTable:
    """In time order, each time once."""

    wall_s: Floats
    watts: Floats
    column: str
    """The power column's name."""

    unit: str | None
    """The unit it was read in; None: no unit was given and its name says none, so the numbers are taken as watts."""

    @property
    def step_s(self) -> float:
        """The usual distance between two rows."""
        return float(np.median(np.diff(self.wall_s)))


def read_load_table(
    lines: Iterable[str], *, unit: str | None = None, column: str | None = None, zone: tzinfo = UTC
) -> LoadTable:
    """The first column of dates (else of numbers, as seconds) is the time; `column`, else the first other one of
    numbers, the power. Dates without a zone are read in `zone`. Raise ConfigError for a table that holds neither."""
    rows = [row for row in csv.reader(lines) if row]
    if len(rows) < 3:
        raise ConfigError("load file: needs a header and at least two rows")
    header, body = rows[0], rows[1:]
    dates = _dates_in(zone)
    time_column = _first_column(body[0], dates, but=None)
    if time_column is None:
        time_column = _first_column(body[0], _number, but=None)
    power_column = _power_column(header, body[0], column, but=time_column)
    if time_column is None or power_column is None:
        raise ConfigError(f"load file: columns {header} hold no time and power")
    known_unit, factor = _unit(unit, header[power_column])
    table: dict[float, float] = {}  # a repeated hour (clocks set back) keeps its first value
    for row in body:
        seconds = _cell(row, time_column, dates)
        if seconds is None:
            seconds = _cell(row, time_column, _number)
        power = _cell(row, power_column, _number)
        if seconds is not None and power is not None:
            table.setdefault(seconds, power * factor)
    if len(table) < 2:
        raise ConfigError(f"load file: column {header[power_column]!r} holds fewer than two readable rows")
    ordered = sorted(table)
    return LoadTable(np.array(ordered), np.array([table[s] for s in ordered]), header[power_column], known_unit)


def read_power_table(lines: Iterable[str], *, unit: str | None) -> tuple[Floats, Floats]:
    """Seconds and watts in time order."""
    table = read_load_table(lines, unit=unit)
    return table.wall_s, table.watts


def interval_means(table: LoadTable, *, interval_s: float) -> tuple[Floats, Floats]:
    """(start, mean watts) of the intervals, clocked to the epoch, that rows fall into.

    Rows further apart than an interval stay as they are: each is the mean of its own, longer time.
    """
    if table.step_s >= interval_s:
        return table.wall_s, table.watts
    starts, where = np.unique(np.floor(table.wall_s / interval_s), return_inverse=True)
    sums, counts = np.bincount(where, weights=table.watts), np.bincount(where)
    return starts * interval_s, sums / counts


def _power_column(header: Sequence[str], row: Sequence[str], name: str | None, *, but: int | None) -> int | None:
    if name is None:
        return _first_column(row, _number, but=but)
    if name not in header:
        raise ConfigError(f"load file: there is no column {name!r}, only {', '.join(header)}")
    return list(header).index(name)


def _first_column(row: Sequence[str], parse: Parser, *, but: int | None) -> int | None:
    for column in range(len(row)):
        if column != but and _cell(row, column, parse) is not None:
            return column
    return None


def _cell(row: Sequence[str], column: int, parse: Parser) -> float | None:
    return parse(row[column]) if column < len(row) else None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _dates_in(zone: tzinfo) -> Parser:
    def seconds(text: str) -> float | None:
        if "-" not in text:  # fromisoformat also takes bare digits
            return None
        try:
            when = datetime.fromisoformat(text.strip())
        except ValueError:
            return None
        return when.replace(tzinfo=when.tzinfo or zone).timestamp()

    return seconds


def _unit(unit: str | None, column_name: str) -> tuple[str | None, float]:
    words = column_name.lower().replace("(", "_").replace(")", "").replace("[", "_").replace("]", "").split("_")
    name = unit.lower() if unit else words[-1].strip()
    factor = WATTS_PER_UNIT.get(name)
    if factor is None and unit:
        raise ConfigError(f"unit = {unit}: must be one of W, kW, MW, GW")
    return (None, 1.0) if factor is None else (name, factor)
