"""Who is behind a request."""

from __future__ import annotations

from typing import Protocol


class Callers(Protocol):
    def caller(self, authorization: bytes) -> str | None:
        """The caller's name, from the header `Authorization`; None: nobody we know."""
        ...
