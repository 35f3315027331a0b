"""Where learned models are kept over a restart: text by name. Losing one costs learning it anew, nothing else."""

from __future__ import annotations

from typing import Protocol


class ModelStore(Protocol):
    def load(self, name: str) -> str | None:
        """None: there is none. Raise Unavailable if it cannot be read."""
        ...

    def save(self, name: str, text: str) -> None:
        """Replace it as a whole. Raise Unavailable if it cannot be written."""
        ...
