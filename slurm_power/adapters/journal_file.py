"""A journal as one small file of JSON lines, replaced as a whole: the old content or the new one, never a mix."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from slurm_power.errors import Unavailable
from slurm_power.ports.journal import Record

_SCALARS = (str, int, float, bool, type(None))


class FileJournal:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._new = path.with_name(path.name + ".new")

    def load(self) -> list[Record]:
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as cause:
            raise Unavailable(f"{self._path}: cannot read the journal: {cause}") from cause
        lines = text.split("\n")
        # A whole line ends with a newline; what follows the last one was torn by a crash.
        return [self._record(number, line) for number, line in enumerate(lines[:-1], start=1) if line]

    def write(self, records: Sequence[Record]) -> None:
        lines = "".join(json.dumps(dict(record), allow_nan=False) + "\n" for record in records)
        try:
            self._write_durably(lines.encode())
        except OSError as cause:
            raise Unavailable(f"{self._path}: cannot write the journal: {cause}") from cause

    def _write_durably(self, content: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(self._new, flags, 0o600)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(file, view) :]
            os.fsync(file)
        finally:
            os.close(file)
        self._new.replace(self._path)
        self._sync_directory()

    def _sync_directory(self) -> None:
        """A rename is on disk only once its directory is."""
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _record(self, number: int, line: str) -> Record:
        try:
            record = json.loads(line)
        except ValueError as cause:
            raise Unavailable(f"{self._path}: line {number} of the journal is damaged") from cause
        if not isinstance(record, dict) or not all(isinstance(value, _SCALARS) for value in record.values()):
            raise Unavailable(f"{self._path}: line {number} of the journal is damaged")
        return record
