"""An fp32 weight on a CPU, packed for products with any number of rows. Where our C cannot be used there is none."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from job_wrappers.serving.kernels.c_library import c_library

_PANEL = 32

Room = Callable[[int], Tensor]


class _Matrix(ctypes.Structure):
    _fields_ = (
        ("panels", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("outputs", ctypes.c_int64),
        ("inputs", ctypes.c_int64),
    )


class PackedMatrix:
    """weight [outputs, inputs] + bias [outputs]. Keeps a copy in another order, not the weight itself."""

    __slots__ = ("_address", "_matrix", "_multiply", "bias", "outputs", "panels")

    def __init__(self, library: ctypes.CDLL, weight: Tensor, bias: Tensor | None, room: Room) -> None:
        self.outputs, inputs = weight.shape
        padded = -(-self.outputs // _PANEL) * _PANEL
        self.panels = room(padded * inputs)
        self.bias = None if bias is None else torch.nn.functional.pad(bias, (0, padded - self.outputs))
        self._matrix = _Matrix(self.panels.data_ptr(), _address(self.bias), self.outputs, inputs)
        self._address, self._multiply = ctypes.addressof(self._matrix), library.matrix_multiply
        library.matrix_pack(self._address, weight.contiguous().data_ptr())

    def __call__(self, x: Tensor) -> Tensor:
        """x [rows, inputs], each row's numbers side by side"""
        if x.stride(1) != 1:
            x = x.contiguous()
        rows = x.shape[0]
        result = torch.empty(rows, self.outputs)
        self._multiply(self._address, x.data_ptr(), x.stride(0), rows, result.data_ptr(), torch.get_num_threads())
        return result

    def rows(self, ids: Tensor) -> Tensor:
        """Rows of the weight."""
        return self.panels.view(-1, self._matrix.inputs, _PANEL)[ids // _PANEL, :, ids % _PANEL]


def packed(weight: Tensor, bias: Tensor | None = None, *, room: Room = torch.empty) -> PackedMatrix | None:
    """None: this weight is not fp32 on a CPU, or our C does not run here. `room`: where so many numbers may lie."""
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or weight.dim() != 2:
        return None
    library = _library()
    return None if library is None else PackedMatrix(library, weight, bias, room)


@functools.cache
def _library() -> Any:
    library = c_library("matrix")
    if library is None or not library.matrix_suits_processor():
        return None
    library.matrix_pack.argtypes, library.matrix_pack.restype = (ctypes.c_void_p, ctypes.c_void_p), None
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.matrix_multiply.argtypes = (pointer, pointer, number, number, pointer, ctypes.c_int32)
    library.matrix_multiply.restype = None
    return library


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
