"""Attention over a paged cache, as a model asks for it. Only back-ends and the store know the layout of the cache."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from job_wrappers.serving.steps.step_input import StepInput


class LayerCache(Protocol):
    """The cache of one layer on this rank; made by `KvStore.layer`."""

    def write(self, keys: Tensor, values: Tensor | None, slots: Tensor) -> None:
        """Store keys [T, kv heads, key size] and values [T, kv heads, value size] (None: values lie in the keys)."""
        ...


class PagedAttention(Protocol):
    """One per model and rank. `plan` is called once per step, `attend` once per layer."""

    def plan(self, step: StepInput) -> Any:
        """What all layers of this step share: tables and lengths on the device, masks, work lists. Opaque."""
        ...

    def attend(self, queries: Tensor, cache: Any, plan: Any, *, scale: float) -> Tensor:
        """Causal attention of each new token over its sequence's LayerCache, which already holds the new tokens.

        queries [T, heads, key size] -> [T, heads, value size], in the dtype of `queries`. heads is a multiple of kv
        heads: head h reads kv head h // (heads / kv heads).
        """
        ...
