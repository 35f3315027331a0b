"""Where a rank stands: which layers it holds, which share of every layer, and how shares are put together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from job_wrappers.serving.errors import require


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPlace:
    tp_rank: int = 0
    tp_size: int = 1
    pp_rank: int = 0
    pp_size: int = 1
    tp_group: Any = None
    """The ranks that hold shares of the same layers; None with one."""

    @property
    def is_first(self) -> bool:
        return self.pp_rank == 0

    @property
    def is_last(self) -> bool:
        return self.pp_rank == self.pp_size - 1

    def layers(self, count: int) -> range:
        """Of this stage. What does not divide goes to the front stages: the last one has the head to do too."""
        require(self.pp_size <= count, "pipeline_parallel", self.pp_size, f"the model has only {count} layers")
        each, more = divmod(count, self.pp_size)
        start = self.pp_rank * each + min(self.pp_rank, more)
        return range(start, start + each + (self.pp_rank < more))

    def share(self, count: int, what: str, *, of: int = 1) -> slice:
        """This rank's of `count` equal things, each of them `of` rows."""
        require(count % self.tp_size == 0, "tensor_parallel", self.tp_size, f"must divide {what} = {count}")
        each = count // self.tp_size * of
        return slice(self.tp_rank * each, (self.tp_rank + 1) * each)

    def kv_share(self, kv_heads: int, *, of: int = 1) -> slice:
        """With more ranks than heads of keys and values, neighbours hold the same head."""
        if self.tp_size <= kv_heads:
            return self.share(kv_heads, "num_key_value_heads", of=of)
        rule = f"must be a multiple of num_key_value_heads = {kv_heads}"
        require(self.tp_size % kv_heads == 0, "tensor_parallel", self.tp_size, rule)
        head = self.tp_rank * kv_heads // self.tp_size
        return slice(head * of, (head + 1) * of)

    def vocabulary(self, count: int) -> slice:
        """This rank's tokens; the last ranks have fewer where it does not divide."""
        each = -(-count // self.tp_size)
        return slice(min(self.tp_rank * each, count), min((self.tp_rank + 1) * each, count))

    def sum(self, summand: Tensor) -> Tensor:
        """Over the shares, on every one of them; in place."""
        if self.tp_size > 1 and summand.numel():
            dist.all_reduce(summand, group=self.tp_group)
        return summand

    def gather(self, columns: Tensor, count: int) -> Tensor:
        """Shares of the vocabulary side by side on the first rank, [rows, 0] on the others."""
        if self.tp_size == 1:
            return columns
        if len(columns) == 0:
            return columns.new_empty(0, count if self.tp_rank == 0 else 0)
        whole = functional.pad(columns, (0, -(-count // self.tp_size) - columns.shape[1])).contiguous()
        parts = self._parts(whole)
        return columns.new_empty(len(columns), 0) if parts is None else torch.cat(parts, dim=-1)[:, :count]

    def _parts(self, mine: Tensor) -> list[Tensor] | None:
        """Every share's tensor on the first one, in order."""
        parts = [torch.empty_like(mine) for _ in range(self.tp_size)] if self.tp_rank == 0 else None
        dist.gather(mine, parts, group=self.tp_group, group_dst=0)
        return parts
