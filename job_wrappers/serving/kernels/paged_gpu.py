"""Whether our Triton kernels work on a GPU: they are tried once before they are relied on."""

from __future__ import annotations

import functools
import importlib.util
import logging
from types import ModuleType

import torch
from torch import Tensor

log = logging.getLogger(__name__)

LARGEST_DIFFERENCE = 0.02
"""Of attention in BF16 over values of about 1; a wrong mask or stride gives more than 0.1."""

_BLOCKS, _BLOCK_TOKENS, _HEADS, _KV_HEADS, _SIZE = 40, 16, 4, 2, 64


@functools.cache
def gpu_kernels(device: torch.device) -> ModuleType | None:
    """`paged_triton` for a CUDA device; None, with a line in the log, where PyTorch's own operations have to do."""
    reason = _why_not(device)
    if reason is None:
        from job_wrappers.serving.kernels import paged_triton

        return paged_triton
    log.warning("our GPU kernels are not used on %s: %s", device, reason)
    return None


def _why_not(device: torch.device) -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return "it is older than compute capability 8.0"
    try:
        difference = trial(device)
    except (RuntimeError, ValueError, NotImplementedError) as failure:  # what torch and Triton raise for a device
        return f"a trial failed: {str(failure).splitlines()[0]}"
    return None if difference <= LARGEST_DIFFERENCE else f"in a trial they were off by {difference:.1e}"


def trial(device: torch.device, dtype: torch.dtype = torch.bfloat16) -> float:
    """Largest difference of writing a context and attending over it, cut in parts, from PyTorch's own operations."""
    from job_wrappers.serving.kernels import paged_triton

    random = torch.Generator().manual_seed(0)
    tokens = _BLOCKS * _BLOCK_TOKENS - 5
    keys, values = (torch.randn(tokens, _KV_HEADS, _SIZE, generator=random).to(device, dtype) for _ in range(2))
    query = torch.randn(1, _HEADS, _SIZE, generator=random).to(device, dtype)
    table = torch.randperm(_BLOCKS, generator=random).to(device)
    places = torch.arange(tokens, device=device)
    slots = table[places // _BLOCK_TOKENS] * _BLOCK_TOKENS + places % _BLOCK_TOKENS
    pool = torch.zeros(2, _BLOCKS, _KV_HEADS, _BLOCK_TOKENS, _SIZE, dtype=dtype, device=device)
    paged_triton.write(pool[0], pool[1], keys, values, slots, block_tokens=_BLOCK_TOKENS)
    result = torch.empty_like(query)
    paged_triton.attend(
        query,
        pool[0],
        pool[1],
        result,
        tiles=torch.zeros(1, 2, dtype=torch.long, device=device),
        starts=torch.tensor([0, 1], device=device),
        lengths=torch.tensor([tokens], device=device),
        tables=table[None],
        longest=tokens,
        single=True,
        rows=paged_triton.tile_rows(_HEADS // _KV_HEADS),
        scale=_SIZE**-0.5,
        values_in_keys=False,
    )
    return float((result.float() - _expected(query, keys, values)).abs().max())


def _expected(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    keys, values = (each.float().repeat_interleave(_HEADS // _KV_HEADS, dim=1) for each in (keys, values))
    scores = torch.einsum("hd,thd->ht", query[0].float(), keys) * _SIZE**-0.5
    return torch.einsum("ht,thd->hd", scores.softmax(-1), values)[None]
