"""Where a rank sits in the model: ranks are numbered over (pipeline, tensor), the last fastest. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from job_wrappers.serving.errors import require


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    rank: int = 0
    tensor: int = 1
    pipeline: int = 1

    def __post_init__(self) -> None:
        require(self.rank < self.world_size, "rank", self.rank, f"there are {self.world_size}")

    @property
    def world_size(self) -> int:
        return self.tensor * self.pipeline

    @property
    def tp_rank(self) -> int:
        return self.rank % self.tensor

    @property
    def pp_rank(self) -> int:
        return self.rank // self.tensor

    @property
    def is_first_stage(self) -> bool:
        return self.pp_rank == 0

    @property
    def is_last_stage(self) -> bool:
        return self.pp_rank == self.pipeline - 1

    @property
    def previous(self) -> int:
        """Whose hidden states this rank goes on with."""
        return self.rank - self.tensor

    @property
    def next(self) -> int:
        return self.rank + self.tensor

    @property
    def logits_rank(self) -> int:
        """Who sends the logits to rank 0, where tokens are sampled; rank 0 itself without a pipeline."""
        return (self.pipeline - 1) * self.tensor
