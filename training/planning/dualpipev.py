"""DualPipeV's order of one rank (github.com/deepseek-ai/DualPipe), as DeepSpeed's DualPipeVSchedule has it. Pure.

Weight gradients stay inside the backward pass. What is to be sent waits for the next commit, as DeepSpeed's CommitP2P.
"""

from __future__ import annotations

from collections import Counter

from training.errors import require
from training.planning.instructions import (
    BACKWARD,
    FORWARD,
    Compute,
    Exchange,
    Instruction,
    Pass,
    Stream,
    foreign_input,
    leaves_rank,
)


def dualpipev(rank: int, ranks: int, micro_batches: int) -> Stream:
    """Raise ConfigError for fewer than 2 x `ranks` micro-batches."""
    require(micro_batches >= 2 * ranks, "micro_batches", micro_batches, f"must be at least {2 * ranks} for dualpipev")
    builder, after = _Builder(rank, ranks), ranks - rank - 1
    for _ in range(2 * after):
        builder.forward(0)
    _both_chunks_forward(builder, rank, is_last=after == 0)
    for _ in range(after):
        builder.backward(1)
        builder.receive(FORWARD, 1)
        builder.commit()
        builder.forward(1, receive=False)
    for i in range(micro_batches - 2 * ranks + rank + 1):
        _main_step(builder, is_first=i == 0, is_last=after == 0)
    for _ in range(after):
        builder.backward(1)
        builder.forward_backward(1, 0)
    for _ in range(rank + 1):
        builder.backward(1)
        builder.backward(0)
    for _ in range(after):
        builder.commit()
        builder.backward(0)
    builder.commit()
    return tuple(builder.instructions)


def _both_chunks_forward(builder: _Builder, rank: int, *, is_last: bool) -> None:
    builder.receive(FORWARD, 0)
    for i in range(rank + 1):
        builder.forward(0, receive=False, send=False)
        builder.receive(FORWARD, 0)
        builder.forward(1, send=not is_last or i < rank)
        builder.send(FORWARD, 0)


def _main_step(builder: _Builder, *, is_first: bool, is_last: bool) -> None:
    if is_first and is_last:
        builder.forward(0, receive=False, send=False)
        builder.send(FORWARD, 1)
        builder.backward(1, send=False)
        builder.send(FORWARD, 0)
        builder.send(BACKWARD, 1)
    else:
        builder.forward_backward(0, 1, receive=not is_first)
    builder.forward_backward(1, 0)


class _Builder:
    """Gives micro-batches out in order and queues messages until the next commit."""

    def __init__(self, rank: int, ranks: int) -> None:
        self.instructions: list[Instruction] = []
        self._stage_of_chunk = (rank, 2 * ranks - 1 - rank)
        self._ranks, self._stages = ranks, 2 * ranks
        self._counts: Counter[tuple[str, Pass, int]] = Counter()
        self._sends: list[Compute] = []
        self._receives: list[Compute] = []

    def forward(self, chunk: int, *, receive: bool = True, send: bool = True) -> None:
        if receive:
            self.receive(FORWARD, chunk)
        self.commit()
        self._compute(FORWARD, chunk)
        if send:
            self.send(FORWARD, chunk)

    def backward(self, chunk: int, *, send: bool = True) -> None:
        self.receive(BACKWARD, chunk)
        self.commit()
        self._compute(BACKWARD, chunk)
        if send:
            self.send(BACKWARD, chunk)

    def forward_backward(self, forward_chunk: int, backward_chunk: int, *, receive: bool = True) -> None:
        if receive:
            self.receive(FORWARD, forward_chunk)
        self.receive(BACKWARD, backward_chunk)
        self.commit()
        self._compute(FORWARD, forward_chunk)
        self._compute(BACKWARD, backward_chunk)
        self.send(FORWARD, forward_chunk)
        self.send(BACKWARD, backward_chunk)

    def receive(self, direction: Pass, chunk: int) -> None:
        wanted = self._next("receive", direction, chunk)
        self._receives += foreign_input(wanted, ranks=self._ranks, stages=self._stages)

    def send(self, direction: Pass, chunk: int) -> None:
        done = self._next("send", direction, chunk)
        if leaves_rank(done, ranks=self._ranks, stages=self._stages):
            self._sends.append(done)

    def commit(self) -> None:
        if self._sends or self._receives:
            self.instructions.append(Exchange(tuple(self._sends), tuple(self._receives)))
        self._sends, self._receives = [], []

    def _compute(self, direction: Pass, chunk: int) -> None:
        self.instructions.append(self._next("compute", direction, chunk))

    def _next(self, what: str, direction: Pass, chunk: int) -> Compute:
        micro_batch = self._counts[what, direction, chunk]
        self._counts[what, direction, chunk] += 1
        return Compute(direction, self._stage_of_chunk[chunk], micro_batch)
