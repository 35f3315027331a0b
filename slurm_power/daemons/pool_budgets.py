"""The controller's side of watt budgets: what pools last drew, what they may draw, and until when."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass

from slurm_power.errors import ConfigError, NotPermitted
from slurm_power.llm.pool_wire import (
    MAX_POOLS,
    Budget,
    Override,
    PoolReport,
    budgets_to_json,
    override_from_json,
    report_from_json,
)
from slurm_power.llm.power_budget import PoolDraw, pool_budgets, share_room
from slurm_power.ports.clock import Clock
from slurm_power.ports.credentials import Credentials


@dataclass(frozen=True, slots=True)
class _Heard:
    report: PoolReport
    uid: int
    at_s: float


@dataclass(frozen=True, slots=True)
class _Until:
    watts: float
    until_s: float


class PoolBudgets:
    """Shared by the web server's threads and the tick: every method is safe to call from any of them."""

    def __init__(
        self,
        *,
        clock: Clock,
        credentials: Credentials,
        allowed_uids: Collection[int],
        admin_uids: Collection[int],
        max_age_s: float,
    ) -> None:
        self._clock, self._credentials, self._max_age_s = clock, credentials, max_age_s
        self._allowed_uids, self._admin_uids = frozenset(allowed_uids), frozenset(admin_uids)
        self._lock = threading.Lock()
        self._heard: dict[str, _Heard] = {}
        self._planned: dict[str, _Until] = {}
        self._wished: dict[str, _Until] = {}
        self._wanted: dict[str, float] = {}  # what pools with a planned budget drew before it, or more since

    def exchange(self, sealed: bytes) -> bytes:
        """One report in, its pools' budgets out. Raise NotPermitted for a stranger, ConfigError for nonsense."""
        opened = self._credentials.open(sealed)
        if opened.uid not in self._allowed_uids:
            raise NotPermitted(f"uid {opened.uid} may not report as a pool manager")
        report = report_from_json(opened.payload)
        with self._lock:
            self._drop_silent()
            known = self._heard.get(report.owner)
            if known is not None and known.uid != opened.uid:
                raise NotPermitted(f"{report.owner} is another user's")
            if known is None and len(self._heard) >= MAX_POOLS:
                raise ConfigError(f"more than {MAX_POOLS} pool managers report")
            self._heard[report.owner] = _Heard(report, opened.uid, self._clock.now_s())
            answer = {pool.name: budget for pool in report.pools if (budget := self._budget(pool)) is not None}
        return self._credentials.seal(budgets_to_json(answer))

    def override(self, sealed: bytes) -> bytes:
        """An admin's wish. It goes before what the plan would give, also where that is less."""
        opened = self._credentials.open(sealed)
        if opened.uid not in self._admin_uids:
            raise NotPermitted(f"uid {opened.uid} may not set budgets")
        wish = override_from_json(opened.payload)
        with self._lock:
            pools = self._pools_called(wish.pool)
            if not pools:
                known = ", ".join(sorted(pool.name for pool in self._pools())) or "none"
                raise ConfigError(f"no pool {wish.pool} reports; there are {known}")
            self._wish(wish, pools)
        return self._credentials.seal(b"{}")

    def follow(self, *, shed_watts: float, envelope_watts: float, it_watts: float | None, for_s: float) -> None:
        """What the plan leaves all pools together, from now on and for so long."""
        with self._lock:
            self._drop_silent()
            until_s = self._clock.now_s() + for_s
            budgets = pool_budgets(
                self._pools(), shed_watts=shed_watts, envelope_watts=envelope_watts, it_watts=it_watts
            )
            self._planned = {name: _Until(watts, until_s) for name, watts in budgets.items()}
            self._wanted = {
                pool.name: max(pool.draw_watts, self._wanted.get(pool.name, 0.0))
                for pool in self._pools()
                if pool.name in budgets
            }

    def held_back_watts(self) -> float:
        """What planned budgets keep pools from drawing: a plan that forgot it would set free whoever obeys."""
        with self._lock:
            self._drop_silent()
            return sum(
                max(0.0, self._wanted[pool.name] - pool.draw_watts)
                for pool in self._pools()
                if pool.name in self._planned
            )

    def draws(self) -> Sequence[PoolDraw]:
        """Of pools that were heard of lately."""
        with self._lock:
            self._drop_silent()
            return self._pools()

    def view(self) -> list[dict[str, object]]:
        with self._lock:
            self._drop_silent()
            return [
                {
                    "pool": pool.name,
                    "draw_watts": pool.draw_watts,
                    "least_watts": pool.least_watts,
                    "budget_watts": None if (budget := self._budget(pool)) is None else budget.watts,
                    "budget_for_s": None if budget is None else budget.for_s,
                    **(asdict(report.figures[pool.name]) if pool.name in report.figures else {}),
                }
                for report in (heard.report for heard in self._heard.values())
                for pool in report.pools
            ]

    def _wish(self, wish: Override, pools: Sequence[PoolDraw]) -> None:
        if wish.watts is None:
            for pool in pools:
                self._wished.pop(pool.name, None)
            return
        until_s = self._clock.now_s() + wish.for_s
        for name, watts in share_room(pools, room_watts=wish.watts).items():
            self._wished[name] = _Until(wish.watts if len(pools) == 1 else watts, until_s)

    def _pools(self) -> list[PoolDraw]:
        return [pool for heard in self._heard.values() for pool in heard.report.pools]

    def _pools_called(self, name: str) -> list[PoolDraw]:
        return [pool for pool in self._pools() if name in (pool.name, pool.name.partition("/")[0])]

    def _budget(self, pool: PoolDraw) -> Budget | None:
        now_s = self._clock.now_s()
        for table in (self._wished, self._planned):
            found = table.get(pool.name)
            if found is not None and found.until_s > now_s:
                return Budget(found.watts, found.until_s - now_s)
        return None

    def _drop_silent(self) -> None:
        now_s = self._clock.now_s()
        self._heard = {owner: one for owner, one in self._heard.items() if now_s - one.at_s <= self._max_age_s}
        for table in (self._wished, self._planned):
            for name in [name for name, one in table.items() if one.until_s <= now_s]:
                del table[name]
