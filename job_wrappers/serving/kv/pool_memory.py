"""Memory for a pool of blocks, zeroed: present from the start, so that a server's size does not grow as it fills."""

from __future__ import annotations

import mmap

import torch
from torch import Tensor

from job_wrappers.serving.errors import DoesNotFit


def allocate(blocks: int, numbers: int, dtype: torch.dtype, device: torch.device, *, pinned: bool = False) -> Tensor:
    """[blocks, numbers]"""
    try:
        if device.type == "cpu" and not pinned and blocks > 0:
            return _huge_pages(blocks * numbers, dtype).view(blocks, numbers)
        return torch.zeros(blocks, numbers, dtype=dtype, device=device, pin_memory=pinned and blocks > 0)
    except (OSError, RuntimeError) as cause:  # torch's out-of-memory is a RuntimeError
        raise DoesNotFit(
            f"the cache's {blocks} blocks of {numbers * dtype.itemsize:,} bytes cannot be had on {device}: {cause}"
        ) from cause


def _huge_pages(numbers: int, dtype: torch.dtype) -> Tensor:
    memory = mmap.mmap(-1, numbers * dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    # A block is read in pieces of a page or so: with small pages every piece would miss the TLB.
    memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype).zero_()
