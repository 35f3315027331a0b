"""A linear program in blocks of variables and rows, handed to HiGHS as arrays. Small on purpose."""

from __future__ import annotations

from collections.abc import Sequence

import highspy
import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.int64]
Values = NDArray[np.float64]
Term = tuple[Column, float | Values]
INFINITE = float(highspy.kHighsInf)


class LinearProgram:
    """Minimise cost. Variables are added in blocks; a row block holds one row per entry of its terms."""

    def __init__(self) -> None:
        self._lower: list[Values] = []
        self._upper: list[Values] = []
        self._cost: list[Values] = []
        self._columns = 0
        self._row_lower: list[Values] = []
        self._row_upper: list[Values] = []
        self._entries: list[tuple[NDArray[np.int64], Column, Values]] = []
        self._rows = 0

    def variables(
        self,
        count: int,
        *,
        cost: float | Values = 0.0,
        lower: float | Values = 0.0,
        upper: float | Values = INFINITE,
    ) -> Column:
        """`count` new variables; the answer names their columns."""
        for values, store in ((lower, self._lower), (upper, self._upper), (cost, self._cost)):
            store.append(np.broadcast_to(np.asarray(values, dtype=np.float64), (count,)))
        columns = np.arange(self._columns, self._columns + count, dtype=np.int64)
        self._columns += count
        return columns

    def rows(
        self,
        terms: Sequence[Term],
        *,
        lower: float | Values = -INFINITE,
        upper: float | Values = INFINITE,
    ) -> Column:
        """lower <= sum of column x coefficient <= upper, for each entry of the (equally long) columns. The answer
        names the rows."""
        count = terms[0][0].size
        rows = np.arange(self._rows, self._rows + count, dtype=np.int64)
        for columns, coefficient in terms:
            values = np.broadcast_to(np.asarray(coefficient, dtype=np.float64), (count,))
            self._entries.append((rows, columns, values))
        for bound, store in ((lower, self._row_lower), (upper, self._row_upper)):
            store.append(np.broadcast_to(np.asarray(bound, dtype=np.float64), (count,)))
        self._rows += count
        return rows

    def open(self, *, presolve: bool = False) -> OpenProgram:
        """`presolve`: faster for one solve of a large program, slower for several."""
        return OpenProgram(self._model(), presolve=presolve)

    def solve(self) -> Values | None:
        """The value of every variable; None if HiGHS does not call its answer optimal."""
        return self.open(presolve=True).solve()

    def _model(self) -> highspy.HighsLp:
        rows = np.concatenate([entry[0] for entry in self._entries])
        columns = np.concatenate([entry[1] for entry in self._entries])
        values = np.concatenate([entry[2] for entry in self._entries])
        order = np.argsort(rows, kind="stable")
        starts = np.zeros(self._rows + 1, dtype=np.int32)
        np.cumsum(np.bincount(rows, minlength=self._rows), out=starts[1:])
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = self._columns, self._rows
        lp.col_cost_ = np.concatenate(self._cost)
        lp.col_lower_, lp.col_upper_ = np.concatenate(self._lower), np.concatenate(self._upper)
        lp.row_lower_, lp.row_upper_ = np.concatenate(self._row_lower), np.concatenate(self._row_upper)
        lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        lp.a_matrix_.start_ = starts
        lp.a_matrix_.index_ = columns[order].astype(np.int32)
        lp.a_matrix_.value_ = values[order]
        return lp


class _QuietHighs(highspy.Highs):
    """Without the callbacks, which nobody uses here: setting them up prints a banner to standard output."""

    def __init__(self) -> None:
        super(highspy.Highs, self).__init__()


class OpenProgram:
    """A program that is solved several times with other bounds; each solve begins where the last one ended."""

    def __init__(self, model: highspy.HighsLp, *, presolve: bool) -> None:
        self._highs = _QuietHighs()
        self._highs.setOptionValue("output_flag", False)
        self._highs.setOptionValue("threads", 1)
        # Without it, or the basis of the last solve would be lost.
        self._highs.setOptionValue("presolve", "on" if presolve else "off")
        self._highs.passModel(model)

    def fix_rows(self, rows: Column, values: Values) -> None:
        change = self._highs.changeRowsBounds  # type: ignore[attr-defined]
        change(rows.size, rows.astype(np.int32), values, values)

    def bound_columns(self, columns: Column, *, upper: Values) -> None:
        """From 0 to `upper`."""
        self._highs.changeColsBounds(columns.size, columns.astype(np.int32), np.zeros(columns.size), upper)

    def solve(self) -> Values | None:
        """The value of every variable; None if HiGHS does not call its answer optimal."""
        self._highs.run()
        if self._highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            return None
        return np.array(self._highs.getSolution().col_value, dtype=np.float64)
