"""What the C library does with the memory of tensors that come and go with every iteration on a CPU."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_MIB = 1024 * 1024

KEEP_BELOW_BYTES, KEEP_FREE_BYTES = 64 * _MIB, 256 * _MIB


def keep_freed_memory() -> None:
    """Freed blocks stay in the process for the next iteration. By default glibc gives large ones back at once, and the
    kernel clears them page by page when they are wanted again: a quarter of the time of a long prompt.

    See mallopt(3). Does nothing with another C library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, KEEP_BELOW_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEEP_FREE_BYTES)
        mallopt(_M_ARENA_MAX, 1)


def give_back_freed_memory() -> None:
    """All of it: what is resident now is in use."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
