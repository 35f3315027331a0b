"""The desk: who gets which place and when, emergencies in their order, and nothing left behind by an hour of load."""

from __future__ import annotations

import asyncio
import gc
import random
import tracemalloc
from collections.abc import Coroutine
from typing import Any

import pytest

from slurm_power.daemons.pool_roster import PoolInstance, Roster
from slurm_power.daemons.router_desk import Desk
from slurm_power.daemons.router_ticket import Asked, NoPlace, Ticket
from slurm_power.llm.output_length import OutputLengths
from slurm_power.llm.request_class import DEFAULT_SLO, REQUEST_CLASSES, RequestClass
from slurm_power.testing.fake_clock import FakeClock

SS, LL = REQUEST_CLASSES[0], REQUEST_CLASSES[-1]


class Site:
    def __init__(self, *, max_waiting: int = 50, patience_s: float = 5.0) -> None:
        self.clock, self.roster = FakeClock(), Roster()
        self.hurried: list[frozenset[RequestClass]] = []
        self.desk = Desk(
            self.roster, slo=DEFAULT_SLO, lengths=OutputLengths(most_callers=100), now_s=self.clock.now_s,
            max_waiting=max_waiting, patience_s=patience_s, on_hurry=self.hurried.append,
        )  # fmt: skip

    def add(self, pool: RequestClass = LL, *, seats: int = 1) -> PoolInstance:
        number = len(self.roster) + 1
        one = PoolInstance(number, pool, gpus=1, seats=seats, prefill_tokens_per_s=1e6, since_s=0.0)
        one.url, one.alive, one.capacity_tokens = f"http://{number}", True, 100_000
        self.roster.add(one)
        return one

    def asked(self, prompt_tokens: int = 100, *, caller: str = "a", max_tokens: int | None = 10) -> Asked:
        return Asked(
            model="m", caller=caller, prompt_tokens=prompt_tokens, max_tokens=max_tokens,
            arrived_at_s=self.clock.now_s(),
        )  # fmt: skip

    async def wait(self, *prompts: int) -> list[asyncio.Future[Ticket]]:
        """Requests that find no place, in this order."""
        waiting = [asyncio.ensure_future(self.desk.place(self.asked(prompt))) for prompt in prompts]
        await asyncio.sleep(0)
        return waiting


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60.0))


async def first_done(waiting: list[asyncio.Future[Ticket]]) -> int:
    await asyncio.sleep(0)
    (place,) = [number for number, one in enumerate(waiting) if one.done()]
    return place


def test_a_freed_seat_goes_to_the_earliest_deadline_not_to_the_first_in_line() -> None:
    async def test() -> None:
        site = Site()
        site.add()
        ticket = await site.desk.place(site.asked())
        waiting = await site.wait(3000, 100, 500)  # due in 2, 0.25 and 0.4 s
        ticket.done(output_tokens=10)
        assert await first_done(waiting) == 1
        for one in waiting:
            one.cancel()

    run(test())


def test_without_the_queue_layer_they_go_in_order_of_arrival() -> None:
    async def test() -> None:
        site = Site()
        site.desk.by_class, site.roster.one_pool = False, True
        site.add(SS)
        ticket = await site.desk.place(site.asked(3000))
        waiting = await site.wait(3000, 100)
        ticket.done(output_tokens=10)
        assert await first_done(waiting) == 0
        for one in waiting:
            one.cancel()

    run(test())


def test_an_instance_that_comes_takes_those_that_wait() -> None:
    async def test() -> None:
        site = Site()
        waiting = await site.wait(100, 100)
        site.add(seats=2)
        site.desk.offer_places()
        assert {ticket.instance.job_id for ticket in await asyncio.gather(*waiting)} == {1}

    run(test())


def test_one_who_leaves_while_waiting_leaves_no_trace() -> None:
    async def test() -> None:
        site = Site()
        (one,) = await site.wait(100)
        one.cancel()
        await asyncio.gather(one, return_exceptions=True)
        assert site.desk.waiting == 0
        assert not site.desk._waiting

    run(test())


def test_a_late_queue_raises_the_clock_then_goes_anywhere_and_is_refused_only_at_last() -> None:
    async def test() -> None:
        site = Site(patience_s=5.0)
        own, small = site.add(LL), site.add(SS)
        site.desk.serves = {one: SS if one == SS else LL for one in REQUEST_CLASSES}
        busy = [await site.desk.place(site.asked(3000))]
        waiting = await site.wait(3000, 3000, 3000)
        site.clock.advance(1.8)
        site.desk.look_at_emergencies()
        assert site.hurried[-1] == {LL}
        assert await first_done(waiting) == 0  # at the smaller pool, which would not take it otherwise
        assert (await waiting[0]).instance is small
        site.clock.advance(1.0)
        site.desk.look_at_emergencies()
        assert site.desk.figures.refused == 0
        site.clock.advance(8.0)
        site.desk.look_at_emergencies()
        refusals = await asyncio.gather(*waiting[1:], return_exceptions=True)
        assert all(isinstance(one, NoPlace) and one.status == 429 and one.retry_after_s >= 1 for one in refusals)
        assert own.requests == 1
        busy[0].done()

    run(test())


def test_with_nothing_that_serves_they_wait_a_while_and_are_told_503() -> None:
    async def test() -> None:
        site = Site(patience_s=5.0)
        waiting = await site.wait(100)
        site.clock.advance(4.0)
        site.desk.look_at_emergencies()
        assert not waiting[0].done()
        site.clock.advance(7.0)
        site.desk.look_at_emergencies()
        with pytest.raises(NoPlace, match="nothing serves") as refusal:
            await waiting[0]
        assert refusal.value.status == 503

    run(test())


def test_more_than_may_wait_are_refused_at_once() -> None:
    async def test() -> None:
        site = Site(max_waiting=3)
        waiting = await site.wait(100, 100, 100)
        with pytest.raises(NoPlace, match="3 requests wait already"):
            await site.desk.place(site.asked())
        site.desk.refuse_all("the end")
        assert all(isinstance(one, NoPlace) for one in await asyncio.gather(*waiting, return_exceptions=True))

    run(test())


def test_an_hour_of_load_leaves_nothing_behind() -> None:
    """4,000 requests of ever new callers, some of which leave, break or wait; sizes after the half and the whole."""

    async def test() -> None:
        site, draw = Site(max_waiting=20), random.Random(2)
        instances = [site.add(SS, seats=4), site.add(LL, seats=4)]
        running: list[Ticket] = []
        used_bytes = []

        async def some(count: int) -> None:
            for number in range(count):
                site.clock.advance(0.9)
                if len(running) >= 8 or (running and draw.random() < 0.5):
                    ticket = running.pop(draw.randrange(len(running)))
                    if draw.random() < 0.9:
                        ticket.began()
                        ticket.done(output_tokens=draw.randrange(1, 900))
                    else:
                        ticket.done()
                asked = site.asked(draw.randrange(1, 4000), caller=f"{draw.random()}", max_tokens=None)
                one = asyncio.ensure_future(site.desk.place(asked))
                await asyncio.sleep(0)
                if one.done() and one.exception() is None:
                    running.append(one.result())
                elif not one.done():
                    one.cancel()
                    await asyncio.gather(one, return_exceptions=True)
                if number % 50 == 0:
                    site.desk.look_at_emergencies()
            gc.collect()
            used_bytes.append(tracemalloc.get_traced_memory()[0])

        tracemalloc.start()
        await some(2_000)
        await some(2_000)
        tracemalloc.stop()
        for ticket in running:
            ticket.done()
        assert [(one.requests, one.held_tokens, one.prefill_tokens, len(one.unbegun)) for one in instances] == [
            (0, 0, 0, 0), (0, 0, 0, 0),
        ]  # fmt: skip
        assert (site.desk.waiting, len(site.desk.lengths)) == (0, 100)
        assert used_bytes[1] - used_bytes[0] < 300_000

    run(test())
