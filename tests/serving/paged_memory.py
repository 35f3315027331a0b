"""A model and a cache without torch: each slot keeps the token that was written to it, and each step is checked."""

from __future__ import annotations

from collections.abc import Sequence as Tokens

import numpy as np

from job_wrappers.serving.kv.block_pool import BlockPool
from job_wrappers.serving.requests.output import FinishReason
from job_wrappers.serving.requests.params import SamplingParams
from job_wrappers.serving.requests.request import Priority, Request
from job_wrappers.serving.scheduling.build_step import build_step
from job_wrappers.serving.scheduling.preemption import PreemptionRule
from job_wrappers.serving.scheduling.scheduler import Limits, Scheduler
from job_wrappers.serving.scheduling.sequence import Sequence
from job_wrappers.serving.scheduling.step_plan import StepPlan
from job_wrappers.serving.steps.step_input import BlockMoves, StepInput

VOCABULARY = 11


def next_token(tokens: Tokens[int], choice: int) -> int:
    """The fake model: depends on the whole context and on the choice, as a seeded sampler would."""
    return int(sum((i + 1) * token for i, token in enumerate(tokens)) * 7 + choice * 3 + len(tokens)) % VOCABULARY


def expected(request: Request, choice: int, count: int) -> list[int]:
    tokens = list(request.prompt_token_ids)
    for _ in range(count):
        tokens.append(next_token(tokens, choice))
    return tokens[len(request.prompt_token_ids) :]


class FakeEngine:
    """Runs a scheduler's plans against a cache of plain numbers. Raises AssertionError when a step would read what is
    not the sequence's own past."""

    def __init__(self, scheduler: Scheduler, *, block_tokens: int, stop_token: int | None = None) -> None:
        self.scheduler, self._size, self._stop_token = scheduler, block_tokens, stop_token
        self._device = np.full(scheduler.pool.blocks * block_tokens, -1)
        self._host = np.full(scheduler.host_pool.blocks * block_tokens, -1)
        self.ended: list[Sequence] = []
        self.most_tokens = 0

    def step(self) -> bool:
        plan = self.scheduler.plan()
        if plan is None:
            return False
        self.most_tokens = max(self.most_tokens, plan.new_tokens)
        step = build_step(plan, block_tokens=self._size)
        self._move(step.moves)
        self._compute(step, plan)
        tokens = {s: next_token(s.token_ids, s.choice) for s in plan.samplers}
        full = self.scheduler.advance(plan, tokens)
        for sequence, token in tokens.items():
            if sequence in full or token == self._stop_token:
                self.scheduler.finish(sequence, FinishReason.LENGTH if sequence in full else FinishReason.STOP)
                self.ended.append(sequence)
        self.scheduler.check_invariants()
        return True

    def run(self, *, most_steps: int = 10_000) -> None:
        for _ in range(most_steps):
            if not self.step():
                return
        raise AssertionError("the scheduler does not come to an end")

    def _move(self, moves: BlockMoves) -> None:
        device, host = self._device.reshape(-1, self._size), self._host.reshape(-1, self._size)
        for kind, source, target in (
            (moves.swap_out, device, host),
            (moves.swap_in, host, device),
            (moves.copies, device, device),
        ):
            assert len(set(kind[:, 1].tolist())) == len(kind), "two blocks move to one place"
            for a, b in kind:
                target[b] = source[a]

    def _compute(self, step: StepInput, plan: StepPlan) -> None:
        slots = step.slots
        assert len(set(slots.tolist())) == slots.size > 0, "two new tokens share a slot"
        pool = self.scheduler.pool
        for block in set((slots // self._size).tolist()):
            assert pool.holders(block) == 1, "a block is written that others hold too"
            assert not pool.published(block), "a block is written that others may find"
        self._device[slots] = step.token_ids
        for i, entry in enumerate(plan.scheduled):
            context, table = int(step.context_lengths[i]), step.block_tables[i]
            at = np.arange(context)
            cached = self._device[table[at // self._size] * self._size + at % self._size]
            own = entry.sequence.token_ids[:context]
            assert cached.tolist() == own, "the cache does not hold the sequence's past"


class Ticks:
    """A clock that is set."""

    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


def scheduler_of(
    *,
    blocks: int = 64,
    host_blocks: int = 64,
    block_tokens: int = 4,
    max_num_seqs: int = 8,
    max_batched_tokens: int = 64,
    max_waiting: int = 1000,
    max_model_len: int = 60,
    mode: str = "recompute",
    prefix_caching: bool = True,
    now_s: Ticks | None = None,
) -> Scheduler:
    rule = PreemptionRule(
        mode=mode,  # type: ignore[arg-type]
        block_bytes=1024,
        block_tokens=block_tokens,
        copy_bytes_per_s=1e6,
        prefill_tokens_per_s=1e3,
    )
    return Scheduler(
        pool=BlockPool(blocks),
        host_pool=BlockPool(host_blocks),
        block_tokens=block_tokens,
        limits=Limits(max_num_seqs=max_num_seqs, max_batched_tokens=max_batched_tokens, max_waiting=max_waiting),
        max_model_len=max_model_len,
        preemption=rule,
        prefix_caching=prefix_caching,
        now_s=now_s or Ticks(),
    )


def request_of(
    name: str,
    prompt: Tokens[int],
    *,
    max_tokens: int = 8,
    n: int = 1,
    priority: Priority = Priority.INTERACTIVE,
    caller: str = "",
    arrived_at_s: float = 0.0,
    deadline_s: float | None = None,
    salt: str = "",
) -> Request:
    return Request(
        request_id=name,
        model="fake",
        prompt_token_ids=tuple(prompt),
        params=SamplingParams(max_tokens=max_tokens, n=n),
        priority=priority,
        caller=caller,
        arrived_at_s=arrived_at_s,
        deadline_s=deadline_s,
        cache_salt=salt,
    )
