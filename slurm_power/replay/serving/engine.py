"""One serving instance at the level of iterations: continuous batching, a cache of so many tokens, prompts in chunks.

As in the serving engine's scheduler: running sequences have their token set aside, prompts share the rest of the budget
in order of urgency, nothing starts unless its prompt fits whole beside what runs, and the newest makes room by
recomputation. Between two changes of the batch all iterations are alike and pass as one leap.
"""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush

from slurm_power.llm.profile import ShardProfile
from slurm_power.replay.serving.books import Books, Meter

_NEVER = math.inf
_TABLE_TOKENS = 4096
STANDING_ROOM = 0.97
"""Prompts are let in up to this share of the cache: those that run need room to grow."""


class ShardTables:
    """A profile's formulas at whole numbers: the loop below asks them a million times."""

    def __init__(self, shard: ShardProfile) -> None:
        self.idle_watts, self.prefill_watts = shard.idle_watts, shard.prefill_watts
        self.base_s, self.per_context_token_s = shard.decode.base_s, shard.decode.per_context_token_s
        self.most_sequences, self.cache_tokens = shard.most_sequences, shard.cache_tokens
        self.clocks_mhz = tuple(shard.clocks_mhz)
        self.beside_s = [shard.decode.beside(batch, 0.0) for batch in range(shard.most_sequences + 2)]
        self.prompt_s = [shard.prompt_s(tokens) for tokens in range(_TABLE_TOKENS + 1)]
        self.decode_watts = [shard.decode_draw.watts(batch) for batch in range(shard.most_sequences + 2)]
        self.speed = {mhz: shard.clock.speed_fraction(mhz) for mhz in shard.clocks_mhz}
        self.watts = {mhz: shard.clock.watts_fraction(mhz) for mhz in shard.clocks_mhz}


class Engine:
    """`end_s` is when what it is doing ends; the caller then calls `step`. Its attributes are those that the router
    looks at (llm/routing.py: Instance)."""

    __slots__ = (
        "accepts", "batch", "books", "capacity_tokens", "chunk_tokens", "clock_mhz", "context_tokens", "end_s",
        "held_tokens", "idle_since_s", "iteration", "iteration_s", "iterations", "max_num_seqs", "meter",
        "number", "partial", "partial_tokens", "parts", "prefill_tokens", "prefill_tokens_per_s", "prompt_tokens",
        "requests", "running", "seats", "segment_clock_mhz", "segment_from_s", "slow_iterations", "speed", "tables",
        "waiting", "watts", "watts_scale",
    )  # fmt: skip

    def __init__(
        self, number: int, tables: ShardTables, *, chunk_tokens: int, books: Books, meter: Meter, now_s: float
    ) -> None:
        self.number, self.tables, self.books, self.meter = number, tables, books, meter
        self.chunk_tokens = chunk_tokens
        self.max_num_seqs = self.seats = tables.most_sequences
        self.capacity_tokens = tables.cache_tokens
        self.accepts = True
        self.requests = self.held_tokens = self.prefill_tokens = 0
        self.prefill_tokens_per_s = 1.0
        self.clock_mhz, self.speed, self.watts_scale = tables.clocks_mhz[-1], 1.0, 1.0
        self.waiting: list[tuple[float, int]] = []  # heap of (urgency, request), prompts being computed among them
        self.running: list[tuple[int, int]] = []  # heap of (iteration it ends with, request)
        self.partial: set[int] = set()  # let in, prompt not computed yet
        self.partial_tokens = 0  # of the cache that those hold or will
        self.parts: list[tuple[int, int]] = []  # (request, tokens) of the present iteration
        self.batch = self.context_tokens = self.iteration = self.slow_iterations = 0
        self.iterations = self.prompt_tokens = 0  # of the present segment
        self.iteration_s = self.watts = 0.0
        self.segment_from_s = self.idle_since_s = now_s
        self.segment_clock_mhz = self.clock_mhz
        self.end_s = _NEVER

    def set_clock(self, clock_mhz: int, now_s: float) -> None:
        """From the next iteration on."""
        if clock_mhz == self.clock_mhz:
            return
        self.clock_mhz = clock_mhz
        self.speed, self.watts_scale = self.tables.speed[clock_mhz], self.tables.watts[clock_mhz]
        self.cut(now_s)

    def add(self, request: int, urgency: float, now_s: float) -> None:
        heappush(self.waiting, (urgency, request))
        if self.end_s == _NEVER:
            self._pass_idle(now_s)
            self._begin(now_s)
        else:
            self.cut(now_s)

    def cut(self, now_s: float) -> None:
        """End a leap with the iteration that is being computed: something has changed."""
        if self.iterations > 1:
            done = int((now_s - self.segment_from_s) / self.iteration_s) + 1
            if done < self.iterations:
                self.iterations = done
                self.end_s = self.segment_from_s + done * self.iteration_s

    def step(self) -> None:
        """What ends at `end_s` ends, and the next begins."""
        now_s, books, count, batch = self.end_s, self.books, self.iterations, self.batch
        iteration_s = self.iteration_s
        self.meter.add(self.segment_from_s, now_s, self.watts * (now_s - self.segment_from_s))
        self.iteration += count
        if batch:
            self.context_tokens += batch * count
            books.gap_counts[int(iteration_s * 2000.0) if iteration_s < 1.99 else 3999] += batch * count
            if iteration_s > books.tbt_s:
                self.slow_iterations += count
            running, iteration = self.running, self.iteration
            while running and running[0][0] <= iteration:
                self._finish(heappop(running)[1], now_s)
        if self.parts:
            self._end_prompts(now_s)
        self._begin(now_s)

    def flush(self, now_s: float) -> None:
        """Bring the meter up to now if idle."""
        if self.end_s == _NEVER:
            self._pass_idle(now_s)

    def evict(self) -> list[int]:
        """The instance is lost: everything that was in it, in order of urgency."""
        gone = [request for _, request in sorted(self.waiting)] + [request for _, request in sorted(self.running)]
        self.waiting, self.running, self.parts = [], [], []
        self.partial.clear()
        self.batch = self.context_tokens = self.requests = self.held_tokens = self.prefill_tokens = 0
        self.partial_tokens = 0
        self.end_s = _NEVER
        return gone

    def _begin(self, now_s: float) -> None:
        self.segment_from_s, self.segment_clock_mhz = now_s, self.clock_mhz
        while self.batch > 1 and self.capacity_tokens - self.context_tokens - self.partial_tokens < self.batch:
            self._preempt()
        self.prompt_tokens = prompts = self._take_prompts() if self.waiting else 0
        tables, batch = self.tables, self.batch
        watts = tables.decode_watts[batch]
        if prompts:
            count = 1
            prompt_s = tables.prompt_s[prompts]
            whole_s = prompt_s + tables.beside_s[batch] + tables.per_context_token_s * self.context_tokens
            watts += (prompt_s - tables.base_s) / whole_s * (tables.prefill_watts - watts)
        elif batch:
            room = (self.capacity_tokens - self.context_tokens - self.partial_tokens) // batch
            count = max(1, min(self.running[0][0] - self.iteration, room))
            context = self.context_tokens + batch * (count - 1) * 0.5
            whole_s = tables.base_s + tables.beside_s[batch] + tables.per_context_token_s * context
        else:
            self.iterations, self.end_s, self.idle_since_s = 0, _NEVER, now_s
            return
        self.iterations = count
        self.iteration_s = iteration_s = whole_s / self.speed
        watts *= self.watts_scale
        self.watts = watts if watts > tables.idle_watts else tables.idle_watts
        self.end_s = now_s + count * iteration_s

    def _take_prompts(self) -> int:
        """Fill the iteration from the most urgent on; returns its prompt tokens."""
        budget = self.chunk_tokens - self.batch
        books, waiting, parts, partial = self.books, self.waiting, self.parts, self.partial
        taken = 0
        kept = None
        while waiting and budget > 0:
            request = waiting[0][1]
            if request not in partial:
                need = books.context_of[request]
                there = self.context_tokens + self.partial_tokens
                full = there + need > self.capacity_tokens * STANDING_ROOM and there > 0
                if full or self.batch + len(partial) >= self.max_num_seqs:
                    if not partial or kept is not None:
                        break
                    kept = heappop(waiting)  # waits for room, while prompts that were let in go on
                    continue
                partial.add(request)
                self.partial_tokens += need
            left = books.prompt_left[request]
            if left > budget:
                parts.append((request, budget))
                taken += budget
                break
            heappop(waiting)
            parts.append((request, left))
            taken += left
            budget -= left
        if kept is not None:
            heappush(waiting, kept)
        return min(taken, _TABLE_TOKENS)

    def _end_prompts(self, now_s: float) -> None:
        books = self.books
        for request, tokens in self.parts:
            left = books.prompt_left[request] = books.prompt_left[request] - tokens
            self.prefill_tokens -= tokens
            if left:
                continue
            self.partial.discard(request)
            held = books.context_of[request]
            self.partial_tokens -= held
            if books.first_token_s[request] < 0.0:
                books.first_token_s[request] = now_s
            self.context_tokens += held
            self.batch += 1
            books.slow_gaps[request] -= self.slow_iterations
            answer = books.answer_left[request]
            if answer > 0:
                heappush(self.running, (self.iteration + answer, request))
            else:
                books.answer_left[request] = 0
                self._finish(request, now_s)
        self.parts.clear()

    def _finish(self, request: int, now_s: float) -> None:
        books = self.books
        self.batch -= 1
        self.context_tokens -= books.context_of[request] + books.answer_left[request]
        self.requests -= 1
        self.held_tokens -= books.foreseen_tokens[request]
        books.finish(request, now_s, self.slow_iterations)

    def _preempt(self) -> None:
        """The newest leaves; prompt and answer so far are computed again later."""
        ends, request = max(self.running, key=lambda one: self.books.first_token_s[one[1]])
        self.running.remove((ends, request))
        heapify(self.running)
        books = self.books
        left = ends - self.iteration
        written = books.answer_left[request] - left
        self.context_tokens -= books.context_of[request] + written
        self.batch -= 1
        books.slow_gaps[request] += self.slow_iterations + 1
        books.context_of[request] += written + 1
        books.prompt_left[request] = books.context_of[request]
        self.prefill_tokens += books.context_of[request]
        books.answer_left[request] = left - 1
        books.preemptions += 1
        heappush(self.waiting, (-1.0, request))

    def _pass_idle(self, now_s: float) -> None:
        if now_s <= self.idle_since_s:
            return
        self.meter.add(self.idle_since_s, now_s, self.tables.idle_watts * (now_s - self.idle_since_s))
        self.idle_since_s = now_s
