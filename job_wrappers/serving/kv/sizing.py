"""How many blocks fit beside the weights and the largest step. Pure arithmetic, that explains itself."""

from __future__ import annotations

from dataclasses import dataclass

from job_wrappers.serving.errors import DoesNotFit
from job_wrappers.serving.kv.block_table import blocks_for
from job_wrappers.serving.kv.layout import KvLayout

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSize:
    budget_bytes: int
    weight_bytes: int
    activation_bytes: int
    """Peak beyond the weights, measured at the largest step."""

    swap_bytes: int
    layout: KvLayout
    max_model_len: int
    device_blocks: int
    host_blocks: int

    @property
    def token_slots(self) -> int:
        return self.device_blocks * self.layout.block_tokens

    def explain(self) -> list[str]:
        """The arithmetic, a line each."""
        block = self.layout.block_bytes
        cache = self.device_blocks * block
        return [
            f"memory budget          {_mib(self.budget_bytes)}",
            f"- weights              {_mib(self.weight_bytes)}",
            f"- largest step         {_mib(self.activation_bytes)} (measured)",
            f"= {self.device_blocks} blocks of {block / 1024:.0f} KiB  {_mib(cache)}: "
            f"{self.token_slots} tokens of {self.layout.token_bytes} bytes, "
            f"{self.token_slots / self.max_model_len:.1f} sequences of {self.max_model_len}",
            f"swap space             {_mib(self.host_blocks * block)} in host memory: {self.host_blocks} blocks",
        ]


def size_cache(
    *,
    budget_bytes: int,
    weight_bytes: int,
    activation_bytes: int,
    swap_bytes: int,
    layout: KvLayout,
    max_model_len: int,
    max_blocks: int | None = None,
) -> CacheSize:
    """All of the budget that is left becomes blocks (no more than `max_blocks`). Raise DoesNotFit, with the numbers, if
    one sequence of the model's length would not fit: it could be admitted and never end."""
    left = budget_bytes - weight_bytes - activation_bytes
    device_blocks = max(0, left // layout.block_bytes)
    if max_blocks is not None:
        device_blocks = min(device_blocks, max_blocks)
    needed = blocks_for(max_model_len, layout.block_tokens) + 1
    if device_blocks < needed:
        parts = [weight_bytes, activation_bytes, needed * layout.block_bytes, budget_bytes]
        weights, step, cache, budget = (_mib(part).strip() for part in parts)
        raise DoesNotFit(
            f"weights {weights} + largest step {step} + cache for one sequence of {max_model_len} tokens {cache} need "
            f"more than the memory budget of {budget}: raise --memory-gib, or lower --max-model-len or "
            "--max-batched-tokens"
        )
    return CacheSize(
        budget_bytes=budget_bytes,
        weight_bytes=weight_bytes,
        activation_bytes=activation_bytes,
        swap_bytes=swap_bytes,
        layout=layout,
        max_model_len=max_model_len,
        device_blocks=device_blocks,
        host_blocks=swap_bytes // layout.block_bytes,
    )


def waste_fraction(used_tokens: int, allocated_blocks: int, block_tokens: int) -> float:
    """Share of the allocated slots that no token uses."""
    slots = allocated_blocks * block_tokens
    return 1.0 - used_tokens / slots if slots else 0.0


def _mib(count: int) -> str:
    return f"{count / _MIB:10.1f} MiB"
