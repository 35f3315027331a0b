"""Between an engine's state and a checkpoint's boxes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from training.checkpoint.boxes import Box
from training.checkpoint.load import StoredState
from training.errors import StorageError
from training.parallel.optimizer_state import BUFFER, MASTER
from training.parallel.shards import Part


def engine_values(engine: Any) -> Iterator[tuple[Box, Any]]:
    """What this rank writes. Collective: all ranks iterate to the end."""
    for shard in engine.optimizer_shards():
        for kind, tensor in shard.tensors.items():
            yield box_of(shard.part, kind), tensor


def load_state(engine: Any, state: StoredState) -> None:
    """Go on where the checkpoint was written, by whatever plan. Collective.

    Raise StorageError when it does not hold what this model and optimiser need.
    """

    def read(part: Part, kind: str) -> Any:
        return state.read(box_of(part, kind))

    try:
        engine.load_optimizer_shards(read, steps=state.manifest.progress.step)
    except StorageError as cause:
        raise StorageError(f"checkpoint {state.checkpoint}: {cause}") from cause


def load_weights(engine: Any, tensors: Mapping[str, Any]) -> None:
    """Start from whole tensors by Hugging Face name, with fresh moments. Collective."""

    def read(part: Part, kind: str) -> Any:
        if kind in (MASTER, BUFFER):
            return tensors[part.hf_name][part.piece].float()
        return torch.zeros(box_of(part, kind).shape)

    engine.load_optimizer_shards(read, steps=0)


def box_of(part: Part, kind: str) -> Box:
    full = tuple(int(size) for size in part.shape)
    start, shape = [0] * len(full), list(full)
    if part.cut_dim is not None:
        shape[part.cut_dim] //= part.cut_count
        start[part.cut_dim] = part.cut_rank * shape[part.cut_dim]
    return Box(part.hf_name, kind, full, tuple(start), tuple(shape))
