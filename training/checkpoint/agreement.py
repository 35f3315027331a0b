"""How ranks agree on small things between steps, on the CPU: every rank calls the same method in the same order."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any, Protocol


class Agreement(Protocol):
    rank: int
    world_size: int

    def highest(self, values: Sequence[int]) -> list[int]:
        """Place by place, over all ranks."""
        ...

    def total(self, values: Sequence[float]) -> list[float]:
        """Place by place, over all ranks."""
        ...

    def gather(self, message: bytes) -> list[bytes]:
        """Every rank's message, by rank."""
        ...


class Alone:
    """One rank agrees with itself."""

    rank = 0
    world_size = 1

    def highest(self, values: Sequence[int]) -> list[int]:
        return list(values)

    def total(self, values: Sequence[float]) -> list[float]:
        return list(values)

    def gather(self, message: bytes) -> list[bytes]:
        return [message]


class GlooAgreement:
    """A group of its own, so that it never waits for a GPU. Collective; torch.distributed must be open."""

    def __init__(self, *, timeout_s: float) -> None:
        import torch.distributed as dist

        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self._group: Any = dist.new_group(backend="gloo", timeout=datetime.timedelta(seconds=timeout_s))

    def highest(self, values: Sequence[int]) -> list[int]:
        import torch
        import torch.distributed as dist

        table = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(table, dist.ReduceOp.MAX, group=self._group)
        return [int(value) for value in table.tolist()]

    def total(self, values: Sequence[float]) -> list[float]:
        import torch
        import torch.distributed as dist

        table = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(table, dist.ReduceOp.SUM, group=self._group)
        return [float(value) for value in table.tolist()]

    def gather(self, message: bytes) -> list[bytes]:
        import torch
        import torch.distributed as dist

        longest = self.highest([len(message)])[0]
        mine = torch.zeros(8 + longest, dtype=torch.uint8)
        framed = len(message).to_bytes(8, "little") + message
        mine[: len(framed)] = torch.frombuffer(bytearray(framed), dtype=torch.uint8)
        everyone = [torch.empty_like(mine) for _ in range(self.world_size)]
        dist.all_gather(everyone, mine, group=self._group)
        return [_unframed(bytes(each.numpy())) for each in everyone]


def agree_on(agreement: Agreement, problem: str | None) -> str | None:
    """The first rank's problem, on all ranks; None when no rank has one."""
    if not agreement.highest([problem is not None])[0]:
        return None
    texts = [message.decode() for message in agreement.gather((problem or "").encode())]
    rank, text = next((rank, text) for rank, text in enumerate(texts) if text)
    return f"rank {rank}: {text}" if agreement.world_size > 1 else text


def _unframed(data: bytes) -> bytes:
    return data[8 : 8 + int.from_bytes(data[:8], "little")]
