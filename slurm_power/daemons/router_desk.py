"""Finds each request its instance, lets those wait that find none, and refuses what would only wait in vain.

Lives on one asyncio loop. Which instance, which next and whom to refuse: `llm.routing` and `llm.emergency` decide.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass

from slurm_power.daemons.pool_roster import PoolInstance, Roster
from slurm_power.daemons.router_figures import RouterFigures
from slurm_power.daemons.router_ticket import Asked, NoPlace, Ticket
from slurm_power.llm.emergency import Queued, Relief, late, plan_emergency, retry_after_s
from slurm_power.llm.output_length import OutputLengths
from slurm_power.llm.request_class import REQUEST_CLASSES, RequestClass, Slo, prompt_size, request_class
from slurm_power.llm.routing import Ask, Room, Waiting, batch_for, least_loaded, pools_for

_PACE_SHARE = 0.1
_FIRST_PACE_S = 0.05
_OVERDUE = 2.0
_LOOKED_AT = 256
"""Of those that wait: the most urgent, when places are given out or an emergency is judged."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Somebody who waits."""

    asked: Asked
    waiting: Waiting
    since_s: float
    future: asyncio.Future[Ticket]


class Desk:
    def __init__(
        self,
        roster: Roster,
        *,
        slo: Slo,
        lengths: OutputLengths,
        now_s: Callable[[], float],
        max_waiting: int,
        patience_s: float,
        on_hurry: Callable[[frozenset[RequestClass]], None],
    ) -> None:
        """`on_hurry` is called with pools whose clock should rise at once."""
        self.roster, self.lengths, self.now_s = roster, lengths, now_s
        self.figures = RouterFigures()
        self.serves = {one: one for one in REQUEST_CLASSES}
        self.by_class = True
        """The queue layer: pools by class, earliest deadline first, emergencies. Off: one queue in order of arrival."""
        self.iteration_tokens = 2048
        self.slo, self._max_waiting, self._patience_s, self._on_hurry = slo, max_waiting, patience_s, on_hurry
        self._waiting: list[Waiting] = []
        self._places: dict[int, _Place] = {}
        self._number = 0
        self._pace_s = _FIRST_PACE_S
        self._placed_at_s = now_s()

    @property
    def waiting(self) -> int:
        return len(self._places)

    async def place(self, asked: Asked, *, without: PoolInstance | None = None) -> Ticket:
        """Raise NoPlace. `without`: the instance that has just failed it."""
        ask = self.ask_of(asked)
        if without is None:
            self.figures.arrived(ask.request_class, asked.prompt_tokens)
        else:
            without.alive = False  # until it is heard of again
            self.roster.regroup()
        if not self._waiting or (self.by_class and ask.slack_s < self._waiting[0].deadline_s - self.now_s()):
            ticket = self._try(asked, ask)
            if ticket is not None:
                return ticket
        if len(self._places) >= self._max_waiting:
            self.figures.refused += 1
            wait_s = retry_after_s(self._pace_s * len(self._places))
            raise NoPlace(f"{len(self._places)} requests wait already", status=429, retry_after_s=wait_s)
        return await self._wait(asked, ask)

    def ask_of(self, asked: Asked) -> Ask:
        length = self.lengths.predict(
            model=asked.model, caller=asked.caller, prompt_tokens=asked.prompt_tokens, max_tokens=asked.max_tokens
        )
        due_s = asked.arrived_at_s + self.slo.ttft_s[prompt_size(asked.prompt_tokens)]
        return Ask(
            request_class(prompt_tokens=asked.prompt_tokens, output_tokens=length.median_tokens),
            asked.prompt_tokens,
            asked.prompt_tokens + int(length.upper_tokens),
            due_s - self.now_s(),
        )

    def on_first(self, ticket: Ticket, at_s: float) -> None:
        ttft_s = at_s - ticket.asked.arrived_at_s
        self.figures.first_token(
            ticket.ask.request_class, ttft_s, due_s=self.slo.ttft_s[ticket.ask.request_class.prompt]
        )

    def on_done(self, ticket: Ticket, output_tokens: int | None, *, cut_off: bool) -> None:
        if output_tokens is not None:
            asked = ticket.asked
            self.lengths.learn(
                model=asked.model,
                caller=asked.caller,
                prompt_tokens=asked.prompt_tokens,
                output_tokens=output_tokens,
                cut_off=cut_off,
            )
            self.figures.finished(ticket, output_tokens, at_s=self.now_s())
        if self._waiting:
            self._give_places(ticket.instance)

    def offer_places(self) -> None:
        """Instances came, or changed: whoever waits may go."""
        for instance in list(self.roster):
            if not self._waiting:
                return
            self._give_places(instance)

    def look_at_emergencies(self) -> None:
        """Called a few times a second while anybody waits."""
        if not self._waiting:
            return
        self.offer_places()
        self._refuse_overdue()
        if not self._waiting or not self.by_class:
            return
        now_s = self.now_s()
        looked_at = self._waiting[:_LOOKED_AT]
        pace_s = max(self._pace_s, (now_s - self._placed_at_s) / (len(self._waiting) + 1))
        queue = [Queued(one.number, one.deadline_s - now_s, pace_s) for one in looked_at]
        if not late(queue):
            return
        self._on_hurry(frozenset(self.serves[one.ask.request_class] for one in looked_at))
        self._reroute(looked_at)
        patient = [one._replace(slack_s=one.slack_s + self._patience_s) for one in queue if one.number in self._places]
        plan = plan_emergency(patient, Relief())
        for number in plan.reject:
            self._refuse(number, plan.retry_after_s)

    def _refuse_overdue(self) -> None:
        """Whoever waited twice as long as anybody should. Where nothing serves, everybody who has waited that long."""
        now_s = self.now_s()
        for number, place in list(self._places.items()):
            if now_s - place.since_s > _OVERDUE * self._patience_s:
                self._refuse(number, retry_after_s(self._pace_s * len(self._places)))

    def refuse_all(self, text: str) -> None:
        """At the end."""
        for number in list(self._places):
            self._refuse(number, 5.0, text=text, status=503)

    # --- inside

    def _try(self, asked: Asked, ask: Ask) -> Ticket | None:
        for pool in pools_for(self._class_of(ask), self.serves, self.roster.there):
            instances = self.roster.pools[pool]
            place = least_loaded(ask, instances)
            if place is not None:
                spilled = self.by_class and pool != self.serves[ask.request_class]
                return Ticket(self, asked, ask, instances[place], spilled=spilled)
        return None

    def _class_of(self, ask: Ask) -> RequestClass:
        return ask.request_class if self.by_class else REQUEST_CLASSES[-1]

    async def _wait(self, asked: Asked, ask: Ask) -> Ticket:
        self._number += 1
        now_s, number = self.now_s(), self._number
        if not self._waiting:
            self._placed_at_s = now_s
        waiting = Waiting(now_s + ask.slack_s if self.by_class else float(number), number, ask)
        place = _Place(asked, waiting, now_s, asyncio.get_running_loop().create_future())
        insort(self._waiting, waiting)
        self._places[number] = place
        try:
            return await place.future
        except asyncio.CancelledError:
            if place.future.done() and not place.future.cancelled() and place.future.exception() is None:
                place.future.result().done()  # the place came just as its caller left
            raise
        finally:
            self._leave(number)

    def _leave(self, number: int) -> None:
        place = self._places.pop(number, None)
        if place is not None:
            del self._waiting[bisect_left(self._waiting, place.waiting)]

    def _give_places(self, instance: PoolInstance) -> None:
        """To those for whom this instance may work, the most urgent first, as many as fit beside each other."""
        if not instance.accepts:
            return
        pool = instance.pool if self.by_class else REQUEST_CLASSES[-1]
        there = self.roster.there
        mine = [
            one for one in self._waiting[:_LOOKED_AT] if pool in pools_for(self._class_of(one.ask), self.serves, there)
        ]
        for one in batch_for(mine, self._room(instance), now_s=self._time_of_deadlines()):
            self._give(one, instance)

    def _room(self, instance: PoolInstance) -> Room:
        free_tokens = instance.capacity_tokens - instance.held_tokens
        return Room(
            seats=instance.seats - instance.requests,
            tokens=free_tokens,
            prompt_tokens=max(0, self.iteration_tokens - instance.prefill_tokens),
        )

    def _time_of_deadlines(self) -> float:
        return self.now_s() if self.by_class else 0.0

    def _give(self, one: Waiting, instance: PoolInstance, *, spilled: bool = False) -> None:
        place = self._places.get(one.number)
        if place is None or place.future.done():
            return
        self._leave(one.number)
        now_s = self.now_s()
        self._pace_s += _PACE_SHARE * (now_s - self._placed_at_s - self._pace_s)
        self._placed_at_s = now_s
        place.future.set_result(Ticket(self, place.asked, one.ask, instance, spilled=spilled))

    def _reroute(self, looked_at: list[Waiting]) -> None:
        """In an emergency any pool will do that has room, also a smaller one."""
        everywhere = [one for instances in self.roster.pools.values() for one in instances]
        now_s = self.now_s()
        for one in looked_at:
            place = least_loaded(one.ask._replace(slack_s=max(0.0, one.deadline_s - now_s)), everywhere)
            if place is not None:
                self._give(one, everywhere[place], spilled=True)

    def _refuse(
        self, number: int, wait_s: float, *, text: str = "no instance can begin in time", status: int = 429
    ) -> None:
        place = self._places.get(number)
        if place is None or place.future.done():
            return
        self._leave(number)
        self.figures.refused += 1
        if not self.roster.serving():
            text, status = "nothing serves now", 503
        place.future.set_exception(NoPlace(text, status=status, retry_after_s=max(1.0, wait_s)))
