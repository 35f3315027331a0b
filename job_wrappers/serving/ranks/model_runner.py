"""One model on one rank: weights, cache, attention. It does not know requests, nor other ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from job_wrappers.serving.attention.choose import choose_attention
from job_wrappers.serving.errors import DoesNotFit
from job_wrappers.serving.kv.layout import KvLayout
from job_wrappers.serving.kv.store import KvStore
from job_wrappers.serving.models.build import (
    Decoder,
    kv_layout,
    load_decoder,
    read_config,
    torch_dtype,
    weight_bytes,
)
from job_wrappers.serving.models.device_step import DeviceStep
from job_wrappers.serving.models.place import ModelPlace
from job_wrappers.serving.ranks.seat import Seat
from job_wrappers.serving.steps.step_input import BlockMoves, StepInput

MIB = 1024 * 1024


class ModelRunner:
    def __init__(self, decoder: Decoder, layout: KvLayout, attention: Any, device: torch.device, weights: int) -> None:
        self.layout = layout
        self.device = device
        self.weight_bytes = weights
        self.hidden_size: int = decoder.config.hidden_size
        self.vocab_size: int = decoder.config.vocab_size
        self.dtype: torch.dtype = decoder.dtype
        self._decoder = decoder
        self._attention = attention
        self._store: KvStore | None = None

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        seat: Seat,
        tp_group: Any,
        device: torch.device,
        dtype: str,
        attention: str,
        block_tokens: int,
        budget_bytes: int,
    ) -> ModelRunner:
        """Reads this rank's share. Raise ConfigError for a folder that cannot be served, DoesNotFit before reading one
        whose weights alone are more than the budget."""
        config = read_config(path)
        place = ModelPlace(
            tp_rank=seat.tp_rank,
            tp_size=seat.tensor,
            pp_rank=seat.pp_rank,
            pp_size=seat.pipeline,
            tp_group=tp_group,
        )
        number = torch_dtype(config, dtype)
        expected = weight_bytes(config, place, number)
        if expected > budget_bytes:
            raise DoesNotFit(
                f"{path}: its weights take {expected / MIB:.0f} MiB on this rank, more than the memory budget of "
                f"{budget_bytes / MIB:.0f} MiB"
            )
        backend = choose_attention(device, attention)
        decoder, weights = load_decoder(
            path,
            config,
            place=place,
            dtype=number,
            device=device,
            attention=backend,
        )
        layout = kv_layout(config, place, dtype_bytes=number.itemsize, block_tokens=block_tokens)
        return cls(decoder, layout, backend, device, weights)

    def allocate(self, *, device_blocks: int, host_blocks: int) -> float | None:
        """All of the cache. The measured bytes/s of a copy to the host or back; None without host blocks."""
        self._store = KvStore(
            self.layout, device_blocks=device_blocks, host_blocks=host_blocks, device=self.device, dtype=self.dtype
        )
        return self._store.measure_copy_bytes_per_s()

    def move(self, moves: BlockMoves) -> None:
        assert self._store is not None, "awake"
        self._store.move(moves)

    def forward(self, step: StepInput, hidden: Tensor | None) -> Tensor:
        assert self._store is not None, "awake"
        with torch.inference_mode():
            on_device = DeviceStep.of(step, self._attention, self.device)
            return self._decoder.forward(on_device, self._store.layers(), hidden)

    def sleep(self) -> None:
        """No cache, weights in CPU RAM."""
        self.drop_cache()
        self._decoder.to(torch.device("cpu"))

    def wake(self) -> None:
        self._decoder.to(self.device)

    def free(self) -> None:
        self.drop_cache()

    def drop_cache(self) -> None:
        if self._store is not None:
            self._store.free()
        self._store = None
