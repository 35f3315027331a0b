"""Whatever arrives, leaves or is steered, and however few blocks there are: every request ends, with its own tokens."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from job_wrappers.serving.engine.config import EngineConfig, EnginePorts, ModelSpec  # noqa: E402
from job_wrappers.serving.engine.offline import Answer, one_rank_host  # noqa: E402
from job_wrappers.serving.kv.block_pool import BlockPool  # noqa: E402
from job_wrappers.serving.requests.output import FinishReason  # noqa: E402
from job_wrappers.serving.requests.params import SamplingParams  # noqa: E402
from job_wrappers.serving.requests.request import Priority, Request  # noqa: E402
from tests.serving.tiny_models import oracle_greedy, tiny_folder  # noqa: E402

pytestmark = pytest.mark.torch

MOST_NEW, LONGEST = 12, 48
BLOCKS = LONGEST // 4 + 2
ENDED = {FinishReason.STOP, FinishReason.LENGTH}


@dataclass(frozen=True)
class Arrival:
    prompt: int
    max_tokens: int
    n: int
    priority: Priority
    deadline_s: float | None


ARRIVALS = st.builds(
    Arrival,
    prompt=st.integers(0, 7),
    max_tokens=st.integers(1, MOST_NEW),
    n=st.sampled_from((1, 1, 1, 2, 3)),
    priority=st.sampled_from(Priority),
    deadline_s=st.sampled_from((None, None, None, 5.0)),
)
EVENTS = st.one_of(
    ARRIVALS,
    ARRIVALS,
    st.tuples(st.just("cancel"), st.integers(0, 10)),
    st.tuples(st.just("limit"), st.integers(1, 6)),
    st.tuples(st.just("budget"), st.integers(1, 40)),
    st.tuples(st.just("step"), st.integers(1, 3)),
)


@lru_cache(maxsize=1)
def prompts() -> tuple[tuple[int, ...], ...]:
    """Some begin alike."""
    return tuple(tuple(range(5 + i % 3, 5 + i % 3 + length)) for i, length in enumerate((1, 3, 4, 9, 16, 17, 30, 35)))


@lru_cache(maxsize=16)
def wanted(prompt: int) -> list[int]:
    return oracle_greedy(tiny_folder("llama"), prompts()[prompt], new_tokens=MOST_NEW)


class Driver:
    """One host for all examples, with a clock that counts iterations and few blocks."""

    def __init__(self) -> None:
        self.steps = 0
        config = EngineConfig(
            models=(ModelSpec(name="m", path=tiny_folder("llama")),),
            memory_bytes=96 * 1024 * 1024,
            swap_bytes=1024 * 1024,
            max_model_len=LONGEST,
            max_num_seqs=6,
            max_batched_tokens=40,
            block_tokens=4,
            batch_patience_s=20.0,
            check_invariants=True,
        )
        self.host = one_rank_host(config, EnginePorts(now_s=lambda: float(self.steps), say=lambda line: None))
        self.engine = self.host.engines["m"]
        self._ids = map(str, itertools.count())

    def begin(self, preemption: Literal["swap", "recompute"]) -> None:
        """As if newly started, with fewer blocks than the tensors hold."""
        scheduler = self.engine.scheduler
        scheduler.pool, scheduler.host_pool = BlockPool(BLOCKS), BlockPool(10)
        scheduler._rule = replace(scheduler._rule, mode=preemption)
        self.host._set_limits(6, 40)

    def arrive(self, arrival: Arrival) -> tuple[str, Arrival, Answer]:
        answer, request_id = Answer(), next(self._ids)
        request = Request(
            request_id=request_id,
            model="m",
            prompt_token_ids=prompts()[arrival.prompt],
            params=SamplingParams(max_tokens=arrival.max_tokens, temperature=0.0, n=arrival.n, ignore_eos=False),
            priority=arrival.priority,
            arrived_at_s=float(self.steps),
            deadline_s=None if arrival.deadline_s is None else self.steps + arrival.deadline_s,
        )
        self.engine.submit(request, answer.hear)
        return request_id, arrival, answer

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            self.steps += 1
            self.host.iterate()


@lru_cache(maxsize=1)
def driver() -> Driver:
    return Driver()


@settings(max_examples=60)
@given(st.lists(EVENTS, min_size=12, max_size=60), st.sampled_from(("swap", "recompute")))
def test_every_request_ends_with_its_own_tokens(events: list[Any], preemption: Literal["swap", "recompute"]) -> None:
    rig = driver()
    rig.begin(preemption)
    taken: list[tuple[str, Arrival, Answer]] = []
    steer: dict[str, Callable[[int], object]] = {
        "limit": lambda size: rig.host._set_limits(size, None),
        "budget": lambda size: rig.host._set_limits(None, size),
        "step": rig.step,
        "cancel": lambda which: taken and rig.engine.cancel(taken[which % len(taken)][0]),
    }
    for event in events:
        if isinstance(event, Arrival):
            taken.append(rig.arrive(event))
        else:
            steer[event[0]](event[1])
    for _ in range(4000):
        if not rig.engine.has_work:
            break
        rig.step()
    for _, arrival, answer in taken:
        assert answer.usage is not None, "it never ended"
        tokens = wanted(arrival.prompt)[: arrival.max_tokens]
        for choice, reason in answer.reasons.items():
            found = answer.tokens[choice]
            assert found == tokens if reason in ENDED else found == tokens[: len(found)]
    assert rig.host.unfinished() == 0
    assert (rig.engine.scheduler.pool.held, rig.engine.scheduler.host_pool.held) == (0, 0)


def test_two_thousand_requests_leave_nothing_behind() -> None:
    """Nothing that is kept for each request outlives it."""
    rig = driver()
    rig.begin("swap")
    for i in range(2000):
        rig.arrive(Arrival(i % 8, 1, 1, Priority.BATCH, None))
        if i % 16 == 15:
            rig.step(8)
    while rig.engine.has_work:
        rig.step()
    shares, scheduler = rig.host.shares, rig.engine.scheduler
    kept = (rig.engine._live, shares._shares, shares._pending, scheduler.running, scheduler.swapped, scheduler.waiting)
    assert [len(each) for each in kept] == [0] * 6
