"""Stop strings in text that comes in pieces. What may be the beginning of one is held back. Pure."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    def __init__(self, stops: Sequence[str], *, include: bool = False) -> None:
        self._stops, self._include = tuple(stops), include
        self._held = ""
        self.found: str | None = None
        """The stop string that ended the text: of those that end first in it, the longest."""

    def add(self, text: str) -> str:
        """Text that can be handed out. After a stop string was found: nothing more."""
        if self.found is not None or not self._stops:
            return "" if self.found is not None else text
        self._held += text
        hit = self._first_hit()
        if hit is not None:
            begin, self.found = hit
            out = self._held[: begin + len(self.found)] if self._include else self._held[:begin]
            self._held = ""
            return out
        keep = self._undecided()
        out, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return out

    def flush(self) -> str:
        """The rest: no stop string came."""
        out, self._held = self._held, ""
        return out

    def _first_hit(self) -> tuple[int, str] | None:
        hits = [(self._held.find(stop) + len(stop), -len(stop), stop) for stop in self._stops if stop in self._held]
        if not hits:
            return None
        end, _, stop = min(hits)
        return end - len(stop), stop

    def _undecided(self) -> int:
        """Length of the longest end of the held text that is the beginning of a stop string."""
        longest = min(len(self._held), max(len(stop) for stop in self._stops) - 1)
        for length in range(longest, 0, -1):
            tail = self._held[len(self._held) - length :]
            if any(stop.startswith(tail) for stop in self._stops):
                return length
        return 0
