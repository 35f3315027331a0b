"""Attention over a paged cache, and writing to it, in C (`c/paged.c`), for fp32 and BF16 in host memory."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import torch
from torch import Tensor

from job_wrappers.serving.kernels.c_library import c_library
from job_wrappers.serving.steps.step_input import StepInput

DTYPES = (torch.float32, torch.bfloat16)
_LANES, _LARGEST_SIZE = 16, 1024
"""Numbers of a head come in whole vectors; a thread's rows have to lie on its stack."""


def _fields(kind: Any, names: str) -> list[tuple[str, Any]]:
    return [(name, kind) for name in names.split()]


class PagedCache(ctypes.Structure):
    """One layer, as C sees it; strides count numbers."""

    _fields_ = (
        *_fields(ctypes.c_void_p, "keys values"),
        *_fields(ctypes.c_int64, "key_block key_head key_token value_block value_head value_token"),
        *_fields(ctypes.c_int64, "kv_heads key_size value_size block_tokens bf16"),
    )


class _Step(ctypes.Structure):
    _fields_ = (
        *_fields(ctypes.c_void_p, "starts lengths tables"),
        *_fields(ctypes.c_int64, "sequences table_width"),
    )


class _Call(ctypes.Structure):
    _fields_ = (
        *_fields(ctypes.c_void_p, "cache step queries"),
        *_fields(ctypes.c_int64, "query_row query_head heads bf16"),
        ("result", ctypes.c_void_p),
        ("scale", ctypes.c_float),
        ("threads", ctypes.c_int32),
    )


class PagedStep:
    """What all layers of a step share; keeps the arrays that C points into."""

    def __init__(self, step: StepInput) -> None:
        self._arrays = (step.query_starts, step.context_lengths, step.block_tables)
        assert all(array.dtype == "int64" and array.flags.c_contiguous for array in self._arrays)
        self._step = _Step(*(array.ctypes.data for array in self._arrays), *step.block_tables.shape)
        self._call = _Call(step=ctypes.addressof(self._step), threads=torch.get_num_threads())
        self._address = ctypes.addressof(self._call)

    def attend(self, queries: Tensor, cache: PagedCache, *, scale: float) -> Tensor:
        """queries [T, heads, key size] in one of DTYPES"""
        if queries.stride(2) != 1:
            queries = queries.contiguous()
        rows, heads, _ = queries.shape
        result = queries.new_empty(rows, heads, cache.value_size)
        call = self._call
        call.cache, call.queries, call.result = ctypes.addressof(cache), queries.data_ptr(), result.data_ptr()
        call.query_row, call.query_head, call.heads = queries.stride(0), queries.stride(1), heads
        call.bf16, call.scale = queries.dtype is torch.bfloat16, scale
        if _library().paged_attend(self._address) != 0:
            raise MemoryError("attention found no memory for its work list")
        return result


def available() -> bool:
    return _library() is not None


def describe(keys: Tensor, values: Tensor) -> PagedCache | None:
    """Of a layer's views [blocks, kv heads, block tokens, size]. None: our C does not suit it, or does not run here."""
    sizes = keys.shape[3], values.shape[3]
    fits = all(size % _LANES == 0 and 0 < size <= _LARGEST_SIZE for size in sizes)
    if keys.device.type != "cpu" or keys.dtype not in DTYPES or not fits or _library() is None:
        return None
    return PagedCache(
        keys.data_ptr(),
        values.data_ptr(),
        *keys.stride()[:3],
        *values.stride()[:3],
        keys.shape[1],
        *sizes,
        keys.shape[2],
        keys.dtype is torch.bfloat16,
    )


def write(cache: PagedCache, keys: Tensor, values: Tensor | None, slots: Tensor) -> None:
    """keys, values [T, kv heads, size] in the dtype of the cache; values None: they lie in the keys."""
    keys = keys if keys.stride(2) == 1 else keys.contiguous()
    values = values if values is None or values.stride(2) == 1 else values.contiguous()
    of_values = (None, 0, 0) if values is None else (values.data_ptr(), *values.stride()[:2])
    address = ctypes.addressof(cache)
    _library().paged_write(
        address, keys.data_ptr(), *keys.stride()[:2], *of_values, slots.contiguous().data_ptr(), len(slots)
    )


@functools.cache
def _library() -> Any:
    library = c_library("paged")
    if library is None:
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.paged_attend.argtypes, library.paged_attend.restype = (pointer,), ctypes.c_int
    library.paged_write.argtypes = (pointer, pointer, number, number, pointer, number, number, pointer, number)
    library.paged_write.restype = None
    return library
