"""The scheduler of iterations: which sequences advance next, within one token budget and the blocks there are. Pure.

Class by class: those that run, oldest first, then those that wait. Decodes have their token set aside, prompts share
the rest. When a running sequence lacks blocks, the newest of the worst class makes room. What waits may take seat and
blocks from a worse class, never from its own. Nothing overtakes the head of the queue, not even what would fit: with
small requests coming on and on, a long prompt would wait for ever.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from job_wrappers.serving.errors import BadRequest, QueueFull
from job_wrappers.serving.kv.block_pool import BlockPool
from job_wrappers.serving.kv.block_table import BlockTable, blocks_for
from job_wrappers.serving.kv.invariants import check
from job_wrappers.serving.requests.output import FinishReason
from job_wrappers.serving.requests.request import Priority, Request
from job_wrappers.serving.scheduling.draft import Draft
from job_wrappers.serving.scheduling.preemption import PreemptionRule, Way
from job_wrappers.serving.scheduling.sequence import Sequence, Status
from job_wrappers.serving.scheduling.step_plan import ScheduledSequence, StepPlan
from job_wrappers.serving.scheduling.throughput import CompletionRate
from job_wrappers.serving.scheduling.waiting import WaitingQueue


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    max_num_seqs: int
    """Sequences that run at the same time."""

    max_batched_tokens: int
    """Tokens of one iteration."""

    max_waiting: int
    """Requests in the queue."""


class Scheduler:
    def __init__(
        self,
        *,
        pool: BlockPool,
        host_pool: BlockPool,
        block_tokens: int,
        limits: Limits,
        max_model_len: int,
        preemption: PreemptionRule,
        prefix_caching: bool = True,
        batch_patience_s: float = 30.0,
        now_s: Callable[[], float],
    ) -> None:
        self.limits = limits
        """May be changed between any two calls of `plan`."""

        self.pool, self.host_pool, self.block_tokens = pool, host_pool, block_tokens
        self.max_model_len = max_model_len
        self._rule, self._prefix_caching, self._now_s = preemption, prefix_caching, now_s
        self._patience_s = batch_patience_s
        self.waiting = WaitingQueue(now_s=now_s)
        self.running: list[Sequence] = []
        """Oldest first."""

        self.preemptions = dict.fromkeys(Way, 0)
        self._completions = CompletionRate(now_s)
        self._next_deadline_s = float("inf")

    def add(self, request: Request) -> Sequence:
        """Into the queue. Raise BadRequest if it can never fit, QueueFull when too many wait."""
        length = len(request.prompt_token_ids)
        if not 0 < length < self.max_model_len:
            raise BadRequest(
                f"the prompt has {length} tokens: must have 1 to {self.max_model_len - 1}, one less than the model's "
                "length",
                parameter="prompt",
            )
        waiting = self.waiting.fresh
        if waiting >= self.limits.max_waiting:
            raise QueueFull(f"{waiting} requests are waiting", retry_after_s=self._completions.time_for_s(waiting))
        table = BlockTable(self.pool, self.block_tokens, salt=request.cache_salt)
        sequence = Sequence(request, table, max_model_len=self.max_model_len, patience_s=self._patience_s)
        self.waiting.add(sequence)
        if request.deadline_s is not None:
            self._next_deadline_s = min(self._next_deadline_s, request.deadline_s)
        return sequence

    def plan(self) -> StepPlan | None:
        """The next iteration; None: there is nothing to do."""
        draft = Draft(self.running, now_s=self._now_s(), budget=self.limits.max_batched_tokens)
        self._pause_surplus(draft)
        for priority in Priority:
            while (sequence := draft.next(priority)) is not None:
                self._advance_running(draft, sequence)
            while not draft.closed and (sequence := self.waiting.first(priority)) is not None:
                draft.closed = not self._let_in(draft, sequence, priority)
        for sequence in draft.preempted:  # only now: none comes back in the iteration that it left in
            self.waiting.put_back(sequence)
        return draft.plan()

    def advance(self, plan: StepPlan, tokens: Mapping[Sequence, int]) -> tuple[Sequence, ...]:
        """The step was computed; `tokens`: the one sampled for each of `plan.samplers`. Returns those that have reached
        their full length: the caller finishes them, and whatever ends for other reasons."""
        full = []
        for entry in plan.scheduled:
            sequence = entry.sequence
            sequence.computed_tokens += entry.new_tokens
            self.waiting.served(sequence.request.caller, entry.new_tokens)
            if self._prefix_caching:
                sequence.table.publish(sequence.token_ids, sequence.computed_tokens)
            sequence.forked = sequence.forked or bool(entry.forks)
            for fork in entry.forks:
                fork.table = sequence.table.fork()
                fork.computed_tokens = sequence.computed_tokens
                self._start(fork)
            for sampler in entry.samplers:
                sampler.token_ids.append(tokens[sampler])
                if sampler.full_length:
                    full.append(sampler)
        return tuple(full)

    def finish(self, sequence: Sequence, reason: FinishReason) -> None:
        """Take it out, wherever it is; its blocks are free, its prefix stays to be found."""
        if sequence.finished:
            return
        if sequence.status is Status.RUNNING:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)
        sequence.table.release()
        sequence.status, sequence.finish_reason = Status.FINISHED, reason
        if reason in (FinishReason.STOP, FinishReason.LENGTH):
            self._completions.note()

    def cancel(self, request_id: str, reason: FinishReason = FinishReason.CANCELLED) -> tuple[Sequence, ...]:
        """All choices of the request that have not ended."""
        gone = tuple(sequence for sequence in self.sequences() if sequence.request.request_id == request_id)
        for sequence in gone:
            self.finish(sequence, reason)
        return gone

    def expire(self) -> tuple[Sequence, ...]:
        """End what is past its own deadline."""
        now_s = self._now_s()
        if now_s < self._next_deadline_s:
            return ()
        limited = [(s.request.deadline_s, s) for s in self.sequences() if s.request.deadline_s is not None]
        late = tuple(sequence for deadline_s, sequence in limited if deadline_s <= now_s)
        for sequence in late:
            self.finish(sequence, FinishReason.DEADLINE)
        self._next_deadline_s = min((at_s for at_s, _ in limited if at_s > now_s), default=float("inf"))
        return late

    def sequences(self) -> Iterator[Sequence]:
        """All that have not ended."""
        yield from self.running
        yield from self.waiting

    @property
    def swapped(self) -> list[Sequence]:
        return [sequence for sequence in tuple(self.waiting.preempted) if sequence.status is Status.SWAPPED]

    @property
    def has_work(self) -> bool:
        return bool(self.running or self.waiting.preempted or self.waiting.fresh)

    def used_tokens(self) -> int:
        """Slots of held blocks that have their token; in a shared block they count once."""
        used: dict[int, int] = {}
        for sequence in tuple(self.running):
            full = sequence.computed_tokens // self.block_tokens
            for block in sequence.table.blocks[full:]:
                used[block] = max(used.get(block, 0), sequence.computed_tokens % self.block_tokens)
            # Of what follows the block that is being filled, nothing is used.
            used.update(dict.fromkeys(sequence.table.blocks[full + 1 :], 0))
        return self.pool.held * self.block_tokens - sum(self.block_tokens - tokens for tokens in used.values())

    def waiting_by_class(self) -> dict[Priority, int]:
        return self.waiting.counts()

    def check_invariants(self) -> None:
        """Raise InvariantBroken."""
        check(self.pool, [(s.table, s.computed_tokens) for s in self.running], block_tokens=self.block_tokens)
        check(self.host_pool, [(s.table, s.computed_tokens) for s in self.swapped], block_tokens=self.block_tokens)

    def _pause_surplus(self, draft: Draft) -> None:
        """After max_num_seqs was lowered, or when a prompt's choices begin."""
        while len(self.running) > self.limits.max_num_seqs and (victim := draft.victim()) is not None:
            self._preempt(draft, victim)

    def _advance_running(self, draft: Draft, sequence: Sequence) -> None:
        new_tokens = draft.tokens_for(sequence)
        if new_tokens == 0:
            return
        table, computed = sequence.table, sequence.computed_tokens
        while (wanted := table.wanted(computed, new_tokens)) > 0 and wanted > self.pool.available:
            draft.closed = True
            victim = draft.victim() or sequence
            self._preempt(draft, victim)
            if victim is sequence:
                return
        self._schedule(draft, sequence, new_tokens)

    def _let_in(self, draft: Draft, sequence: Sequence, priority: Priority) -> bool:
        """Only what will fit whole: a prompt that starts and is preempted half-way helps nobody."""
        found: list[int] = []
        if self._prefix_caching and sequence.status is Status.WAITING:
            found = sequence.table.find_prefix(sequence.token_ids)
        if not self._make_room(draft, sequence, found, priority):
            return False
        self.waiting.remove(sequence)
        if sequence.status is Status.SWAPPED:
            draft.emptied.append(sequence.table)
            sequence.table, moves = sequence.table.copy_to(self.pool, sequence.computed_tokens)
            draft.swap_in += moves
        else:
            sequence.computed_tokens = sequence.table.adopt(found)
        if sequence.first_scheduled_at_s is None:
            sequence.first_scheduled_at_s, sequence.cached_tokens = draft.now_s, sequence.computed_tokens
        self._start(sequence)
        self._schedule(draft, sequence, min(sequence.remaining_tokens, draft.spare_tokens))
        return True

    def _make_room(self, draft: Draft, sequence: Sequence, found: list[int], priority: Priority) -> bool:
        """Token, seat and blocks, if need be those of a worse class; not if even that is too little."""
        worse = draft.worse_than(priority)
        if draft.spare_tokens <= 0 or not self._fits(sequence, found, without=worse, worse=worse):
            return False
        while not self._fits(sequence, found, without=[], worse=worse):
            victim = draft.victim(worse_than=priority)
            if victim is None:
                return False
            worse.remove(victim)
            self._preempt(draft, victim)
        return True

    def _fits(self, sequence: Sequence, found: list[int], *, without: list[Sequence], worse: list[Sequence]) -> bool:
        """`without`: as if these did not run. Those that run keep blocks to grow into, but for the `worse` ones."""
        taken = sum(s.seats for s in self.running) - sum(s.seats for s in without)
        if taken + min(sequence.seats, self.limits.max_num_seqs) > self.limits.max_num_seqs:
            return False
        blocks = blocks_for(len(sequence.token_ids), self.block_tokens) - len(found)
        revived = sum(self.pool.holders(block) == 0 for block in found)
        growth = self._growth(self.running) - self._growth(worse)
        held = sum(len(s.table.blocks) for s in without)
        return blocks + revived + growth <= self.pool.available + held

    def _growth(self, sequences: Iterable[Sequence]) -> int:
        """Blocks for the rest of their prompts, and one for each that it will want next."""
        size = self.block_tokens
        return sum(blocks_for(len(s.token_ids), size) - len(s.table.blocks) + 1 for s in sequences)

    def _schedule(self, draft: Draft, sequence: Sequence, new_tokens: int) -> None:
        copy = sequence.table.reserve(sequence.computed_tokens, new_tokens)
        samples = new_tokens == sequence.remaining_tokens
        forks = tuple(self._choice(sequence, i) for i in range(1, sequence.seats)) if samples else ()
        draft.add(ScheduledSequence(sequence, new_tokens, samples, forks), copy)

    def _choice(self, parent: Sequence, choice: int) -> Sequence:
        sequence = Sequence(parent.request, parent.table, choice=choice, max_model_len=self.max_model_len)
        sequence.urgent_at_s = parent.urgent_at_s
        sequence.cached_tokens, sequence.first_scheduled_at_s = parent.cached_tokens, parent.first_scheduled_at_s
        return sequence

    def _start(self, sequence: Sequence) -> None:
        sequence.status = Status.RUNNING
        insort(self.running, sequence, key=lambda other: other.age)

    def _preempt(self, draft: Draft, victim: Sequence) -> None:
        way = self._rule.choose(
            computed_tokens=victim.computed_tokens,
            blocks=blocks_for(victim.computed_tokens, self.block_tokens),
            host_free_blocks=self.host_pool.available,
        )
        self.running.remove(victim)
        victim.preemptions += 1
        self.preemptions[way] += 1
        draft.preempted.append(victim)
        old = victim.table
        if way is Way.SWAP:
            victim.table, moves = old.copy_to(self.host_pool, victim.computed_tokens)
            draft.swap_out += moves
            victim.status = Status.SWAPPED
        else:
            victim.computed_tokens, victim.status = 0, Status.WAITING
        old.release()
