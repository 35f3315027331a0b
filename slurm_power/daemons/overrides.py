"""What an admin has asked of the running controller, beyond its config. Pure.

observe   write to nothing, as `[controller] mode = "observe"` does. Holds until it is taken back.
hold      decide nothing new about jobs: caps and reservations that stand are kept, the battery goes on defending the
          target. Ends by itself.
target    a promise to keep the import below so many watts, until it is taken back or a moment passes.

Each knows who asked for it and why, and survives a restart; one that has expired meanwhile is gone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace

from slurm_power.errors import ConfigError, require
from slurm_power.ess.grid_event import GridEvent

MAX_HOLD_S = 24 * 3600.0
"""A hold that is forgotten must not last."""

MAX_WORDS = 200
_FOR_GOOD_S = 100 * 365 * 86_400.0

Record = Mapping[str, str | int | float | bool | None]


@dataclass(frozen=True, slots=True)
class Override:
    who: str
    why: str
    since_wall_s: float
    until_wall_s: float | None = None  # None: until it is taken back
    watts: float | None = None  # of a target

    def holds(self, wall_s: float) -> bool:
        return self.until_wall_s is None or wall_s < self.until_wall_s


@dataclass(frozen=True, slots=True)
class Overrides:
    """None: not asked for."""

    observe: Override | None = None
    hold: Override | None = None
    target: Override | None = None

    def at(self, wall_s: float) -> Overrides:
        """Without what has expired."""
        found = {name: getattr(self, name) for name in NAMES}
        return Overrides(**{name: one for name, one in found.items() if one is not None and one.holds(wall_s)})

    @property
    def grid_events(self) -> tuple[GridEvent, ...]:
        """The promised target, as the planner takes what a utility asks for."""
        if self.target is None or self.target.watts is None:
            return ()
        since_s = self.target.since_wall_s
        end_s = since_s + _FOR_GOOD_S if self.target.until_wall_s is None else self.target.until_wall_s
        name = f"target of {self.target.who}"
        return (GridEvent(name=name, start_wall_s=since_s, duration_s=end_s - since_s, limit_watts=self.target.watts),)

    def with_one(self, name: str, override: Override | None) -> Overrides:
        return replace(self, **{name: override})

    def to_records(self) -> list[Record]:
        given = {name: getattr(self, name) for name in NAMES}
        return [{"name": name, **asdict(one)} for name, one in given.items() if one is not None]

    @classmethod
    def from_records(cls, records: list[Record]) -> Overrides:
        """Raise ValueError for anything that `to_records` did not make."""
        found: dict[str, Override] = {}
        for record in records:
            name = record.get("name")
            if name not in NAMES:
                raise ValueError(f"not an override: {dict(record)}")
            found[str(name)] = _override(record)
        return cls(**found)


NAMES = tuple(field.name for field in fields(Overrides))


def checked_until(for_s: object, *, wall_s: float, longest_s: float = math.inf) -> float:
    """When something that lasts `for_s` ends. Raise ConfigError for what is no such time."""
    seconds = checked_number(for_s, "for_s")
    require(0 < seconds <= longest_s, "for_s", seconds, f"must be above 0 and at most {longest_s:g}")
    return wall_s + seconds


def checked_number(value: object, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"{key} = {value!r}: must be a number")
    return float(value)


def checked_words(value: object, key: str) -> str:
    """What a person says: one printable line, not empty."""
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_WORDS or not value.isprintable():
        raise ConfigError(f"{key}: must be one line of 1 to {MAX_WORDS} printable characters")
    return value.strip()


def _override(record: Record) -> Override:
    try:
        until, watts = record["until_wall_s"], record["watts"]
        return Override(
            who=str(record["who"]),
            why=str(record["why"]),
            since_wall_s=float(record["since_wall_s"] or 0.0),
            until_wall_s=None if until is None else float(until),
            watts=None if watts is None else float(watts),
        )
    except (KeyError, TypeError, ValueError) as cause:
        raise ValueError(f"not an override: {dict(record)}") from cause
