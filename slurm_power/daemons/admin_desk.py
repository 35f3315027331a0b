"""Where an admin's wishes arrive, are checked, written down and told as decisions. Any thread may call it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from slurm_power.daemons.controller_view import Event
from slurm_power.daemons.overrides import (
    MAX_HOLD_S,
    Override,
    Overrides,
    checked_number,
    checked_until,
    checked_words,
)
from slurm_power.errors import ConfigError, require
from slurm_power.ports.clock import Clock
from slurm_power.ports.journal import Journal


class AdminDesk:
    """Raise ConfigError for a wish that cannot be granted, Unavailable when it cannot be written down: then it does not
    hold, for it would not survive a restart."""

    def __init__(self, *, journal: Journal, clock: Clock, grid_limit_watts: float, may_manage: bool = True) -> None:
        """`may_manage` False: the config says observe, and no wish can undo that."""
        self._journal, self._clock, self._grid_limit_watts = journal, clock, grid_limit_watts
        self._may_manage = may_manage
        self._lock = threading.Lock()
        self._overrides = self._load()
        self.on_event: Callable[[Event], None] = lambda event: None
        """Told of every wish that was granted, before the caller gets the answer."""

    def current(self) -> Overrides:
        with self._lock:
            return self._overrides.at(self._clock.wall_s())

    def observe(self, wish: Mapping[str, Any], *, who: str) -> Overrides:
        on = _switch(wish)
        why = checked_words(wish.get("why"), "why")
        if not on and not self._may_manage:
            raise ConfigError("the config says [controller] mode = observe; that can only be changed there")
        override = Override(who, why, self._clock.wall_s()) if on else None
        return self._keep("observe", override, verb="observe" if on else "manage", why=why, who=who)

    def hold(self, wish: Mapping[str, Any], *, who: str) -> Overrides:
        why, now_s = checked_words(wish.get("why"), "why"), self._clock.wall_s()
        if not _switch(wish):
            return self._keep("hold", None, verb="resume", why=why, who=who)
        until_s = checked_until(wish.get("for_s"), wall_s=now_s, longest_s=MAX_HOLD_S)
        return self._keep("hold", Override(who, why, now_s, until_s), verb="hold", why=why, who=who)

    def target(self, wish: Mapping[str, Any], *, who: str) -> Overrides:
        """`watts` null takes it back."""
        why, now_s = checked_words(wish.get("why"), "why"), self._clock.wall_s()
        if "watts" not in wish:
            raise ConfigError("watts: missing; null takes the target back")
        if wish["watts"] is None:
            return self._keep("target", None, verb="untarget", why=why, who=who)
        watts = checked_number(wish["watts"], "watts")
        rule = f"must be above 0 and at most the grid limit, {self._grid_limit_watts:.0f}"
        require(0 < watts <= self._grid_limit_watts, "watts", watts, rule)
        until_s = None if wish.get("for_s") is None else checked_until(wish["for_s"], wall_s=now_s)
        return self._keep("target", Override(who, why, now_s, until_s, watts), verb="target", why=why, who=who)

    def _keep(self, name: str, override: Override | None, *, verb: str, why: str, who: str) -> Overrides:
        wall_s = self._clock.wall_s()
        with self._lock:
            wanted = self._overrides.at(wall_s).with_one(name, override)
            self._journal.write(wanted.to_records())
            self._overrides = wanted
        self.on_event(Event(wall_s, verb, "controller", f"{who}: {why}{_details(override, wall_s)}"))
        return wanted

    def _load(self) -> Overrides:
        """Whoever asked to observe must not find the site managed because a file is damaged: so a person must look."""
        try:
            return Overrides.from_records(self._journal.load())
        except ValueError as cause:
            raise ConfigError(
                f"what admins asked for cannot be read ({cause}); delete the file to go by the config"
            ) from cause


def _switch(wish: Mapping[str, Any]) -> bool:
    on = wish.get("on", True)
    if not isinstance(on, bool):
        raise ConfigError(f"on = {on!r}: must be true or false")
    return on


def _details(override: Override | None, wall_s: float) -> str:
    if override is None:
        return ""
    watts = "" if override.watts is None else f"{override.watts:.0f} W"
    until = "" if override.until_wall_s is None else f"for {(override.until_wall_s - wall_s) / 60:.0f} min"
    words = ", ".join(part for part in (watts, until) if part)
    return f" ({words})" if words else ""
