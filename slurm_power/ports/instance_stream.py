"""A request on its way to an instance, and its answer as it comes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class InstanceAnswer(Protocol):
    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[bytes, bytes]:
        """By lower-case name."""
        ...

    async def part(self) -> bytes | None:
        """The next bytes of the body; None at its end. Raise Unavailable when the instance broke off."""
        ...

    def close(self) -> None:
        """Safe to call again; before the end it tells the instance that nobody listens."""
        ...


class InstanceStreams(Protocol):
    async def send(self, url: str, path: str, body: bytes) -> InstanceAnswer:
        """POST JSON; returns with the answer's head. Raise Unavailable when nobody answers."""
        ...

    def close(self) -> None: ...
