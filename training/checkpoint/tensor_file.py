"""safetensors files, written in one pass with their checksum, read part by part.

Not by the package's own writer, which says that a disk is full in words only, syncs nothing and hashes nothing.
Format: https://huggingface.co/docs/safetensors, "Format".
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from training.checkpoint.boxes import Box
from training.errors import StorageError

_DTYPES = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
}
_PIECE_BYTES = 1 << 24

Say = Callable[[str], None]
"""Called before each thing that a crash could interrupt, with its name."""


def silent(_: str) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Written:
    size_bytes: int
    sha256: str


def write_tensors(path: Path, tensors: Mapping[str, Any], *, about_to: Say = silent) -> Written:
    """CPU tensors by key; on disk when this returns. Raise StorageError when the disk refuses."""
    header: dict[str, Any] = {}
    offset = 0
    for key, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        header[key] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that values are aligned
    digest = hashlib.sha256()
    size = 0
    try:
        with path.open("wb", buffering=0) as file:
            for data in _pieces(len(text).to_bytes(8, "little") + text, tensors):
                about_to("write")
                _write_all(file, data)
                digest.update(data)
                size += len(data)
            about_to("sync")
            os.fsync(file.fileno())
    except OSError as cause:
        raise StorageError(f"{path}: {cause.strerror}") from cause
    return Written(size, digest.hexdigest())


def _pieces(head: bytes, tensors: Mapping[str, Any]) -> Any:
    yield memoryview(head)
    for tensor in tensors.values():
        data = memoryview(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
        for begin in range(0, len(data), _PIECE_BYTES):
            yield data[begin : begin + _PIECE_BYTES]


def _write_all(file: Any, data: memoryview) -> None:
    """A raw file may take less than it is given, the last time before the disk is full."""
    while data:
        data = data[file.write(data) :]


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class TensorFiles:
    """Opens files of one folder when they are first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._opened: dict[str, Any] = {}

    def read(self, file: str, stored: Box, part: Box) -> Any:
        """The values of `part`, of which `stored` in `file` holds all. Raise StorageError when they cannot be read."""
        try:
            if file not in self._opened:
                self._opened[file] = safe_open(self._folder / file, framework="pt", device="cpu")
            if part.shape == stored.shape:
                return self._opened[file].get_tensor(stored.key)
            return self._opened[file].get_slice(stored.key)[part.inside(stored)]
        except (SafetensorError, OSError) as cause:
            raise StorageError(f"{self._folder / file}: cannot be read: {cause}") from cause
