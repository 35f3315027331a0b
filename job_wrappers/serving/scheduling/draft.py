"""A plan in the making: who is still to be planned, what is left of the budget, which blocks are to be moved."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from job_wrappers.serving.kv.block_table import BlockTable, Copy
from job_wrappers.serving.requests.request import Priority
from job_wrappers.serving.scheduling.sequence import Sequence
from job_wrappers.serving.scheduling.step_plan import ScheduledSequence, StepPlan


class Draft:
    """Whoever was planned stays planned: only those still to be planned make room for others. So the moves of a plan
    never contradict each other: nothing that is written or copied in this step is moved out by it."""

    def __init__(self, running: Iterable[Sequence], *, now_s: float, budget: int) -> None:
        """`running`: oldest first."""
        self.now_s = now_s
        self.to_plan: dict[Priority, deque[Sequence]] = {priority: deque() for priority in Priority}
        decodes = 0
        for sequence in running:
            self.to_plan[sequence.priority(now_s)].append(sequence)
            decodes += sequence.remaining_tokens == 1
        self._budget, self._decodes = budget, decodes
        self.closed = False
        """Nothing more is let in."""

        self.preempted: list[Sequence] = []
        self.swap_out: list[Copy] = []
        self.swap_in: list[Copy] = []
        self.emptied: list[BlockTable] = []
        """In the host's pool, of what was swapped in. Blocks go out before they come in, so that these cannot be given
        to a victim of the same step: they are released when the plan is complete."""

        self._ones: list[ScheduledSequence] = []
        self._chunks: list[ScheduledSequence] = []
        self._copies: list[Copy] = []

    def tokens_for(self, sequence: Sequence) -> int:
        """Decodes have one each set aside, what is left is for prompts. (Fewer than decodes, if just lowered.)"""
        remaining = sequence.remaining_tokens
        if remaining == 1:
            return min(1, self._budget)
        return max(0, min(remaining, self._budget - self._decodes))

    @property
    def spare_tokens(self) -> int:
        """For what has not been running."""
        return self._budget - self._decodes

    def next(self, priority: Priority) -> Sequence | None:
        waiting = self.to_plan[priority]
        if not waiting:
            return None
        sequence = waiting.popleft()
        self._decodes -= sequence.remaining_tokens == 1
        return sequence

    def worse_than(self, priority: Priority) -> list[Sequence]:
        """Those still to be planned that may have to make room for `priority`."""
        return [sequence for worse in Priority if worse > priority for sequence in self.to_plan[worse]]

    def victim(self, worse_than: Priority | None = None) -> Sequence | None:
        """The newest of the worst class still to be planned."""
        for priority in reversed(Priority):
            if priority is worse_than:
                return None
            if self.to_plan[priority]:
                sequence = self.to_plan[priority].pop()
                self._decodes -= sequence.remaining_tokens == 1
                return sequence
        return None

    def add(self, entry: ScheduledSequence, copy: Copy | None) -> None:
        (self._ones if entry.new_tokens == 1 else self._chunks).append(entry)
        self._budget -= entry.new_tokens
        if copy is not None:
            self._copies.append(copy)

    def plan(self) -> StepPlan | None:
        for table in self.emptied:
            table.release()
        entries = (*self._ones, *self._chunks)
        if not entries:
            assert not self.preempted, "room was made for nobody"
            return None
        return StepPlan(entries, tuple(self.swap_out), tuple(self.swap_in), tuple(self._copies), tuple(self.preempted))
