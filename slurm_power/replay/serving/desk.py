"""The router and the instance managers of a replay: which instance a request goes to, and how fast that one runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from slurm_power.llm.fleet import LARGEST
from slurm_power.llm.instance_clock import InstanceView, Setting, WaitingPrompt
from slurm_power.llm.request_class import REQUEST_CLASSES, RequestClass, Size
from slurm_power.llm.routing import Ask, least_loaded, pools_for
from slurm_power.replay.serving.books import Books
from slurm_power.replay.serving.engine import Engine
from slurm_power.replay.serving.member import Member, PoolRate
from slurm_power.replay.serving.trace import Counts, Requests

_LOOKED_AT = 12
"""Instances of a pool that one request is compared over; the next request looks at the next ones."""

_RAISE_FRACTION = 0.8
"""Of a prompt's slack: what waits before it may take so much until the clock is looked at between two epochs."""


class Desk:
    def __init__(
        self, requests: Requests, classes: Counts, outputs: Counts, members: Mapping[int, Member], books: Books
    ) -> None:
        """`classes` and `outputs` as they are foreseen."""
        self.watch: Callable[[Engine], None] = lambda engine: None
        self.clock_changes = 0
        self._members, self._books = members, books
        self._classes, self._outputs = classes.tolist(), outputs.tolist()
        self._prompts = requests.prompt_tokens.tolist()
        self._serves: dict[RequestClass, RequestClass] = dict.fromkeys(REQUEST_CLASSES, LARGEST)
        self._sizes: dict[RequestClass, frozenset[Size]] = {}
        self._pools: dict[RequestClass, list[Engine]] = {}
        self._paths: list[list[list[Engine]]] = []  # by class: its own pool, then larger ones
        self._rates: dict[RequestClass, PoolRate] = {}
        self._held: list[tuple[int, float]] = []  # requests and when they are due, while no instance serves
        self._turn = 0

    def route(self, request: int, now_s: float, due_s: float) -> None:
        """Own pool first, then larger ones; where nobody has room, to the shortest queue. The router holds
        it while there is no instance at all."""
        prompt, context = self._prompts[request], self._books.foreseen_tokens[request]
        number = self._classes[request]
        if not self._pools:
            self._held.append((request, due_s))
            return
        engine = self._choose(Ask(REQUEST_CLASSES[number], prompt, context, due_s - now_s), self._paths[number])
        ends_s = engine.end_s
        engine.requests += 1
        engine.prefill_tokens += prompt
        engine.held_tokens += context
        member = self._members[engine.number]
        rate = self._rates[member.pool]
        rate.prompt_tokens += prompt
        rate.output_tokens += self._outputs[request]
        engine.add(request, due_s, now_s)
        if member.clock is not None and engine.waiting and self._presses(engine, due_s, now_s):
            self._apply(member, member.clock.raise_now(self._view(member, now_s)), now_s)
        if engine.end_s != ends_s:
            self.watch(engine)

    def _presses(self, engine: Engine, due_s: float, now_s: float) -> bool:
        """What is at least as urgent, computed one after the other, takes most of the slack."""
        left = self._books.prompt_left
        before = sum(left[one] for due, one in engine.waiting if due <= due_s)
        wait_s = (before + 0.5 * engine.chunk_tokens) / engine.prefill_tokens_per_s
        return wait_s > _RAISE_FRACTION * (due_s - now_s)

    def _choose(self, ask: Ask, path: list[list[Engine]]) -> Engine:
        for pool in path:
            looked_at = self._look(pool)
            index = least_loaded(ask, looked_at)
            if index is not None:
                return looked_at[index]
        everyone = [engine for pool in path for engine in self._look(pool)]
        return min(everyone, key=lambda one: (one.prefill_tokens / one.prefill_tokens_per_s, one.requests / one.seats))

    def _look(self, pool: list[Engine]) -> list[Engine]:
        if len(pool) <= _LOOKED_AT:
            return pool
        self._turn = (self._turn + _LOOKED_AT // 2) % len(pool)
        return (pool + pool)[self._turn : self._turn + _LOOKED_AT]

    def release_held(self, now_s: float) -> None:
        if self._held and self._pools:
            held, self._held = self._held, []
            for request, due_s in held:
                self.route(request, now_s, due_s)

    def close_epoch(self, epoch_s: float) -> None:
        for rate in self._rates.values():
            rate.close(epoch_s)

    @property
    def seen_tokens_per_s(self) -> float:
        return sum(one.prompt_tokens_per_s + one.output_tokens_per_s for one in self._rates.values())

    def regroup(self, serves: Mapping[RequestClass, RequestClass] | None = None) -> None:
        """Instances have come or gone, or others serve a class."""
        self._serves = self._serves if serves is None else dict(serves)
        pools: dict[RequestClass, list[Engine]] = {}
        for member in self._members.values():
            if member.serving and not member.draining:
                pools.setdefault(member.pool, []).append(member.engine)
        if LARGEST not in pools and pools:
            pool = max(pools, key=lambda one: (one.prompt + one.output, len(pools[one])))
            pools[LARGEST] = pools[pool]
        self._pools, there = pools, frozenset(pools)
        self._paths = [[pools[pool] for pool in pools_for(one, self._serves, there)] for one in REQUEST_CLASSES]
        for pool in {*pools, *(member.pool for member in self._members.values())}:
            self._rates.setdefault(pool, PoolRate())
        self._sizes = {
            pool: frozenset(one.prompt for one, to in self._serves.items() if to == pool or to not in pools)
            or frozenset({pool.prompt})
            for pool in pools
        }

    def steer_clock(self, member: Member, now_s: float) -> None:
        clock, engine = member.clock, member.engine
        if clock is None:
            return
        if engine.iterations and engine.segment_clock_mhz == engine.clock_mhz:
            foreseen_s = clock.shard.iteration_s(
                batch=engine.batch,
                context_tokens=engine.context_tokens,
                prompt_tokens=engine.prompt_tokens,
                clock_mhz=engine.clock_mhz,
            )
            clock.observe(foreseen_s=foreseen_s, seen_s=engine.iteration_s)
        ends_s = engine.end_s
        self._apply(member, clock.decide(self._view(member, now_s)), now_s)
        if engine.end_s != ends_s:
            self.watch(engine)

    def _view(self, member: Member, now_s: float) -> InstanceView:
        engine, rate = member.engine, self._rates[member.pool]
        left = self._books.prompt_left
        waiting = tuple(WaitingPrompt(left[one], due_s - now_s) for due_s, one in sorted(engine.waiting)[:32])
        share = 1.0 / max(1, len(self._pools.get(member.pool, ())))
        return InstanceView(
            batch=engine.batch,
            context_tokens=engine.context_tokens,
            waiting=waiting,
            prompt_tokens_per_s=rate.prompt_tokens_per_s * share,
            output_tokens_per_s=rate.output_tokens_per_s * share,
            sizes=self._sizes.get(member.pool, frozenset(Size)),
        )

    def _apply(self, member: Member, setting: Setting, now_s: float) -> None:
        engine = member.engine
        engine.chunk_tokens = setting.chunk_tokens
        engine.prefill_tokens_per_s = setting.prompt_tokens_per_s
        if setting.clock_mhz != engine.clock_mhz:
            self.clock_changes += 1
            engine.set_clock(setting.clock_mhz, now_s)
