"""The truth log: one CSV row per step of what the site really did. Figures are made from this file."""

from __future__ import annotations

import csv
from dataclasses import asdict, fields
from pathlib import Path
from types import TracebackType
from typing import Self

from slurm_power.testing.simulated_site.plant import Truth

COLUMNS = tuple(field.name for field in fields(Truth))


class TruthLog:
    """Goes on where an earlier process of the same site ended, so that a restart loses no figure."""

    def __init__(self, path: Path) -> None:
        whole_bytes = _whole_bytes(path)
        self._file = path.open("a", buffering=1, newline="")
        self._file.truncate(whole_bytes)
        self._rows = csv.DictWriter(self._file, COLUMNS)
        if not whole_bytes:
            self._rows.writeheader()
        self._last_wall_s: float | None = None

    def write(self, truth: Truth) -> None:
        """Append a row unless this moment is already there."""
        if truth.wall_s != self._last_wall_s:
            self._last_wall_s = truth.wall_s
            values = asdict(truth)
            self._rows.writerow({name: f"{values[name]:.3f}" for name in COLUMNS})

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _whole_bytes(path: Path) -> int:
    """Length up to the last whole row; a killed process may have left half of one."""
    return path.read_bytes().rfind(b"\n") + 1 if path.exists() else 0


def read_truth(path: Path) -> list[Truth]:
    """All whole rows, oldest first; a torn last row (the site was killed) is left out."""
    lines = path.read_text().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    rows = csv.DictReader(whole)
    return [Truth(**{name: float(row[name]) for name in COLUMNS}) for row in rows]
