"""Single instances: worked iterations, and books that always agree."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slurm_power.llm.profile import ShardProfile
from slurm_power.replay.serving.books import Books, Meter
from slurm_power.replay.serving.engine import Engine, ShardTables
from slurm_power.replay.serving.trace import Requests
from tests.llm.made_up_profile import shard


class Bench:
    """One engine and its own loop, which checks the books after every step."""

    def __init__(self, rows: list[tuple[float, int, int]], *, of: ShardProfile, chunk: int = 400) -> None:
        arrivals, prompts, outputs = zip(*sorted(rows), strict=True)
        self.requests = Requests(np.array(arrivals), np.array(prompts), np.array(outputs), max(arrivals) + 1.0)
        self.books = Books(self.requests, tbt_s=0.1)
        self.books.foreseen_tokens = (self.requests.prompt_tokens + self.requests.output_tokens).tolist()
        self.meter = Meter(self.requests.span_s)
        self.engine = Engine(0, ShardTables(of), chunk_tokens=chunk, books=self.books, meter=self.meter, now_s=0.0)
        self.watts: list[tuple[float, float, float]] = []

    def run(self) -> Bench:
        arrivals, place = self.requests.arrival_s.tolist(), 0
        engine = self.engine
        while self.books.finished < self.requests.count:
            arrival_s = arrivals[place] if place < len(arrivals) else math.inf
            if arrival_s <= engine.end_s:
                prompt = int(self.requests.prompt_tokens[place])
                engine.requests += 1
                engine.prefill_tokens += prompt
                engine.held_tokens += self.books.foreseen_tokens[place]
                engine.add(place, arrival_s, arrival_s)
                place += 1
            else:
                engine.step()
            self.check()
        return self

    def check(self) -> None:
        engine = self.engine
        assert engine.batch == len(engine.running)
        assert 0 <= engine.context_tokens + engine.partial_tokens <= engine.capacity_tokens
        assert engine.batch + len(engine.partial) <= engine.max_num_seqs
        assert engine.prefill_tokens == sum(self.books.prompt_left[one] for _, one in engine.waiting) + sum(
            tokens for _, tokens in engine.parts if _ not in {one for _, one in engine.waiting}
        )


def test_one_request_takes_its_chunks_and_then_its_tokens() -> None:
    of = shard(2)
    bench = Bench([(0.0, 600, 3)], of=of).run()
    chunks_s = of.prompt_s(400) + of.prompt_s(200)
    assert bench.books.first_token_s[0] == pytest.approx(chunks_s)
    decodes_s = 2 * of.decode.base_s + 2 * of.decode.per_sequence_s + of.decode.per_context_token_s * (600 + 601)
    assert bench.books.finished_s[0] == pytest.approx(chunks_s + decodes_s)


def test_a_request_of_one_token_ends_with_its_prompt() -> None:
    bench = Bench([(0.0, 200, 1)], of=shard(2)).run()
    assert bench.books.finished_s[0] == bench.books.first_token_s[0] == pytest.approx(0.04)


def test_a_leap_ends_where_an_arrival_falls() -> None:
    of = shard(2)
    bench = Bench([(0.0, 200, 1000), (1.0, 200, 1)], of=of).run()
    waited_s = bench.books.first_token_s[1] - 1.0
    alone_s = of.iteration_s(batch=1, context_tokens=300, prompt_tokens=0, clock_mhz=2000)
    both_s = of.iteration_s(batch=1, context_tokens=300, prompt_tokens=200, clock_mhz=2000)
    assert both_s * 0.99 < waited_s < 1.01 * (alone_s + both_s)


def test_the_more_urgent_prompt_is_computed_first() -> None:
    bench = Bench([(0.0, 400, 1)], of=shard(2))
    engine, books = bench.engine, bench.books
    books.prompt_left += [400, 400]
    books.context_of += [400, 400]
    books.answer_left += [0, 0]
    books.slow_gaps += [0, 0]
    books.foreseen_tokens += [401, 401]
    books.first_token_s.extend([-1.0, -1.0])
    books.finished_s.extend([-1.0, -1.0])
    engine.requests = 3
    for number, urgency in ((0, 5.0), (1, 9.0), (2, 1.0)):
        engine.add(number, urgency, 0.0)
    for _ in range(3):
        engine.step()
    assert books.first_token_s[0] < books.first_token_s[2] < books.first_token_s[1]  # 0 was alone when it began


def test_a_lower_clock_holds_from_the_next_iteration_on() -> None:
    bench = Bench([(0.0, 200, 100)], of=shard(2))
    engine = bench.engine
    engine.requests = 1
    engine.add(0, 0.0, 0.0)
    engine.set_clock(1000, 0.01)
    assert engine.end_s == pytest.approx(0.04)
    engine.step()
    assert engine.iteration_s == pytest.approx(
        shard(2).iteration_s(batch=1, context_tokens=200 + 98 / 2, prompt_tokens=0, clock_mhz=1000)
    )


def test_what_does_not_fit_makes_the_newest_wait_and_all_still_finish() -> None:
    bench = Bench([(0.0, 300, 400), (0.01, 300, 400), (0.02, 300, 400)], of=shard(2, cache_tokens=1200)).run()
    assert bench.books.preemptions > 0
    assert bench.books.finished == 3


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 20), st.integers(1, 900), st.integers(1, 90)), min_size=1, max_size=40),
    st.integers(1000, 5000),
    st.integers(60, 900),
)
def test_every_request_finishes_once_with_cache_and_seats_never_overbooked(
    rows: list[tuple[float, int, int]], cache_tokens: int, chunk: int
) -> None:
    bench = Bench(rows, of=shard(2, cache_tokens=cache_tokens, most_sequences=8), chunk=chunk).run()
    engine, books = bench.engine, bench.books
    assert books.finished == len(rows)
    assert (engine.requests, engine.batch, engine.context_tokens, engine.partial_tokens) == (0, 0, 0, 0)
    assert (engine.held_tokens, engine.prefill_tokens) == (0, 0)
    first, last = np.array(books.first_token_s), np.array(books.finished_s)
    assert (bench.requests.arrival_s < first).all()
    assert (first <= last).all()
    if not books.preemptions:
        assert sum(books.gap_counts) == int((bench.requests.output_tokens - 1).sum())


def test_the_meter_shares_what_lies_in_two_slots_by_time() -> None:
    meter = Meter(180.0)
    meter.add(30.0, 150.0, 1200.0)
    assert meter.joules[:3] == pytest.approx([300.0, 600.0, 300.0])
    assert meter.watts(180.0).tolist() == pytest.approx([5.0, 10.0, 5.0])


def test_joules_are_watts_over_time() -> None:
    of = shard(2)
    bench = Bench([(0.0, 200, 1), (10.0, 200, 1)], of=of).run()
    computing = 2 * 0.04 * of.iteration_watts(batch=0, context_tokens=0, prompt_tokens=200, clock_mhz=2000)
    assert sum(bench.meter.joules) == pytest.approx(computing + (10.0 - 0.04) * of.idle_watts)
