"""The cluster's own trust between daemons (munge): who sealed this, and is it fresh."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Opened:
    payload: bytes
    uid: int  # of the process that sealed it, vouched for by the cluster's key
    gid: int


class Credentials(Protocol):
    def seal(self, payload: bytes) -> bytes:
        """Raise Unavailable when the credential daemon cannot be asked."""
        ...

    def open(self, sealed: bytes) -> Opened:
        """Raise NotPermitted for a forged, expired or replayed credential, Unavailable as `seal` does."""
        ...
