"""Models as files of text in one directory. They are JSON: reading one runs no code, whoever wrote it."""

from __future__ import annotations

import os
from pathlib import Path

from slurm_power.errors import Unavailable

MAX_BYTES = 256 * 1024 * 1024


class FileModelStore:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load(self, name: str) -> str | None:
        path = self._path(name)
        try:
            if path.stat().st_size > MAX_BYTES:
                raise Unavailable(f"{path}: a model is at most {MAX_BYTES} bytes")
            return path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as cause:
            raise Unavailable(f"{path}: cannot read the model: {cause}") from cause

    def save(self, name: str, text: str) -> None:
        path = self._path(name)
        new = path.with_name(path.name + ".new")
        try:
            file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(file, "w", encoding="utf-8") as writer:
                writer.write(text)
            new.replace(path)
        except OSError as cause:
            raise Unavailable(f"{path}: cannot write the model: {cause}") from cause

    def _path(self, name: str) -> Path:
        return self._directory / f"forecast_{name}.json"
