"""Norms and gates of whole rows in one pass on a CPU; PyTorch's own where our C does not suit."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from job_wrappers.serving.kernels.c_library import c_library

_LANES = 16


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Over the last dimension, computed in fp32."""
    width = weight.shape[0]
    library = _library() if _suits(x, width) and weight.dtype is torch.float32 else None
    if library is None:
        return functional.rms_norm(x, weight.shape, weight, eps)
    y = torch.empty(x.shape)
    threads = torch.get_num_threads()
    library.rows_norm(x.data_ptr(), x.stride(0), weight.data_ptr(), eps, y.data_ptr(), x.shape[0], width, threads)
    return y


def gated(x: Tensor) -> Tensor:
    """x [rows, gate and up side by side] -> silu(gate) * up"""
    width = x.shape[-1] // 2
    library = _library() if _suits(x, width) and x.is_contiguous() else None
    if library is None:
        gate, up = x.chunk(2, dim=-1)
        return functional.silu(gate) * up
    y = torch.empty(x.shape[0], width)
    library.rows_gate(x.data_ptr(), y.data_ptr(), x.shape[0], width, torch.get_num_threads())
    return y


def _suits(x: Tensor, width: int) -> bool:
    return (
        x.dtype is torch.float32
        and x.device.type == "cpu"
        and x.dim() == 2
        and x.stride(1) == 1
        and width % _LANES == 0
    )


@functools.cache
def _library() -> Any:
    library = c_library("rows")
    if library is None:
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.rows_norm.argtypes = (pointer, number, pointer, ctypes.c_float, pointer, number, number, ctypes.c_int)
    library.rows_gate.argtypes = (pointer, pointer, number, number, ctypes.c_int)
    library.rows_norm.restype = library.rows_gate.restype = None
    return library
