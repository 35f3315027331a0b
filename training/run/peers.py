"""Tells a lost peer from a mistake of ours: torch says both with RuntimeError."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from training.errors import Unavailable

_SIGNS = ("gloo", "nccl", "connection closed by peer", "connection reset", "broken pipe", "timed out", "socket")
"""Words in what gloo, NCCL and the store say when a rank is gone, in small letters."""


@contextmanager
def peers(doing: Callable[[], str]) -> Iterator[None]:
    """Raise Unavailable, in one line, when a collective inside fails because of another rank."""
    try:
        yield
    except RuntimeError as cause:
        text = str(cause).strip() or type(cause).__name__
        if not any(sign in text.lower() for sign in _SIGNS):
            raise
        raise Unavailable(f"{doing()}: a peer is gone: {_shortened(text)}") from cause


def _shortened(text: str) -> str:
    """The first sentence of the first line, without the place in gloo's source."""
    line = text.splitlines()[0]
    return re.sub(r"^\[\S+:\d+\] ", "", line).partition(". This is typically")[0]
