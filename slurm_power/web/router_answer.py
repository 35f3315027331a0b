"""What passes back to the client is looked at only to count its tokens and to find its usage. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass

_EVENT = b"data: "
_MOST_TAIL_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Counted:
    output_tokens: int
    prompt_tokens: int | None
    cut_off: bool  # at its max_tokens


class AnswerWatch:
    """Sees every byte once, and keeps no more than the end."""

    __slots__ = ("_events", "_stream", "_tail")

    def __init__(self, *, stream: bool) -> None:
        self._stream = stream
        self._events = 0
        self._tail = b""

    def see(self, part: bytes) -> None:
        if self._stream:
            self._events += part.count(_EVENT)
            self._tail = part if len(part) > 512 else (self._tail + part)[-1024:]
        elif len(self._tail) < _MOST_TAIL_BYTES:
            self._tail += part
        else:
            self._tail = (self._tail + part)[-_MOST_TAIL_BYTES:]

    def counted(self) -> Counted:
        """What the instance says of itself; else one token for each event but the last, which says that it is done."""
        usage = _usage(self._tail)
        cut_off = b'"finish_reason": "length"' in self._tail or b'"finish_reason":"length"' in self._tail
        if usage is not None:
            return Counted(usage[0], usage[1], cut_off)
        return Counted(max(0, self._events - 1), None, cut_off)


def _usage(tail: bytes) -> tuple[int, int] | None:
    begin = tail.rfind(b'"usage"')
    if begin < 0:
        return None
    text = tail[begin + len(b'"usage"') :].lstrip(b" \t\r\n:")
    try:
        usage, _ = json.JSONDecoder().raw_decode(text.decode("utf-8", "replace"))
        return int(usage["completion_tokens"]), int(usage["prompt_tokens"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
