"""A weight in the form its products need, made once per step instead of once per micro-batch."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

_entries: list[dict[Hashable, tuple[Tensor, int, Any]]] = []
"""The innermost scope is last; empty outside `weight_cache`."""


@contextmanager
def weight_cache() -> Iterator[None]:
    """Inside, a weight is quantised once for all its uses; at the exit everything is forgotten.

    An in-place change that autograd can see makes the entry stale and is noticed. Optimisers that write through `.data`
    are not seen: leave the scope before, or right after, the weights change.
    """
    _entries.append({})
    try:
        yield
    finally:
        _entries.pop()


def prepared(weight: Tensor, how: Hashable, make: Callable[[], Any]) -> Any:
    """`make()`, or what it returned for this version of `weight` and `how` earlier in the scope."""
    if not _entries:
        return make()
    entries = _entries[-1]
    key = (id(weight), how)  # the entry holds the weight, so the id stays its own
    if key in entries and entries[key][1] == weight._version:
        return entries[key][2]
    result = make()
    entries[key] = (weight, weight._version, result)
    return result
