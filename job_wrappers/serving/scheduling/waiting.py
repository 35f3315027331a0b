"""The queue: by class, and within a class what was preempted, then the caller that was served least. Pure."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain

from job_wrappers.serving.requests.request import Priority
from job_wrappers.serving.scheduling.sequence import Sequence, Status

_REMEMBERED_CALLERS = 4096


class WaitingQueue:
    """Served tokens are counted per caller. A caller that comes back after a pause starts level with the least served
    of those present: nobody saves up a claim (virtual token counter, Sheng et al., OSDI 2024)."""

    def __init__(self, *, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._queues: dict[Priority, dict[str, deque[Sequence]]] = {priority: {} for priority in Priority}
        self._served: dict[str, float] = {}
        self._counts = dict.fromkeys(Priority, 0)
        self.preempted: list[Sequence] = []
        """Swapped, or to be computed again; oldest first. They go before anything new of their class."""

    def __len__(self) -> int:
        """Swapped ones do not count: they keep what they have."""
        return self.fresh + sum(sequence.status is Status.WAITING for sequence in self.preempted)

    def __iter__(self) -> Iterator[Sequence]:
        callers = chain.from_iterable(callers.values() for callers in self._queues.values())
        return chain(self.preempted, chain.from_iterable(callers))

    @property
    def fresh(self) -> int:
        """Those that have never run."""
        return sum(self._counts.values())

    def counts(self) -> dict[Priority, int]:
        found = dict(self._counts)
        for sequence in tuple(self.preempted):  # another thread may ask
            found[sequence.request.priority] += sequence.status is Status.WAITING
        return found

    def add(self, sequence: Sequence) -> None:
        request = sequence.request
        callers = self._queues[request.priority]
        if request.caller not in callers:
            self._level(request.caller)
            callers[request.caller] = deque()
        callers[request.caller].append(sequence)
        self._counts[request.priority] += 1

    def put_back(self, sequence: Sequence) -> None:
        insort(self.preempted, sequence, key=lambda other: other.age)

    def first(self, priority: Priority | None = None) -> Sequence | None:
        """Who is next, of those that count as `priority` now, or of all; stays in the queue."""
        for wanted in Priority if priority is None else (priority,):
            found = self._first(wanted)
            if found is not None:
                return found
        return None

    def remove(self, sequence: Sequence) -> None:
        if sequence in self.preempted:
            self.preempted.remove(sequence)
            return
        request = sequence.request
        callers = self._queues[request.priority]
        callers[request.caller].remove(sequence)
        if not callers[request.caller]:
            del callers[request.caller]
        self._counts[request.priority] -= 1

    def served(self, caller: str, tokens: int) -> None:
        self._served[caller] = self._served.get(caller, 0.0) + tokens

    def _first(self, priority: Priority) -> Sequence | None:
        now_s = self._now_s()
        for sequence in self.preempted:
            if sequence.priority(now_s) is priority:
                return sequence
        heads = [
            queue[0]
            for callers in self._queues.values()
            for queue in callers.values()
            if queue[0].priority(now_s) is priority
        ]
        return min(heads, key=lambda s: (self._served.get(s.request.caller, 0.0), s.age), default=None)

    def _level(self, caller: str) -> None:
        present = {other for callers in self._queues.values() for other in callers}
        level = min((self._served.get(other, 0.0) for other in present), default=None)
        if level is None:
            self._served = {}  # nobody to be compared with: the count starts anew
        elif self._served.get(caller, 0.0) < level:
            self._served[caller] = level
        if len(self._served) > _REMEMBERED_CALLERS:  # names come from strangers
            self._served = {other: self._served[other] for other in present if other in self._served}
