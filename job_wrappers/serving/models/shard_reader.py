"""The tensors of a Hugging Face folder, read piece by piece, so that a rank touches only its share of the files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from job_wrappers.serving.errors import ConfigError

INDEX, SINGLE_FILE = "model.safetensors.index.json", "model.safetensors"
SCALE = "_scale_inv"
Shape = tuple[int, ...]


class Source(Protocol):
    """Where weights come from: a folder, or thin air when only their sizes are asked for."""

    device: torch.device

    def has(self, name: str) -> bool: ...

    def read(self, name: str, shape: Shape, where: tuple[slice, ...]) -> Tensor:
        """The piece `where` of a tensor that as a whole has `shape`, as it is stored. Raise ConfigError."""
        ...


class FolderSource:
    def __init__(self, folder: Path, device: torch.device, read_bytes: Callable[[int], None]) -> None:
        self.device = device
        self._folder, self._read_bytes = folder, read_bytes
        self._files = _files(folder)
        self._opened: dict[str, Any] = {}
        self._used: set[str] = set()

    def has(self, name: str) -> bool:
        return name in self._files

    def read(self, name: str, shape: Shape, where: tuple[slice, ...]) -> Tensor:
        if name not in self._files:
            raise ConfigError(f"{self._folder}: tensor {name} is missing")
        self._used.add(name)
        path = self._folder / self._files[name]
        try:
            if path.name not in self._opened:
                self._opened[path.name] = safe_open(path, framework="pt", device="cpu")
            stored = self._opened[path.name].get_slice(name)
            found = tuple(stored.get_shape())
            if found != shape:
                raise ConfigError(f"{path}: {name} is {list(found)}, config.json says {list(shape)}")
            piece: Tensor = stored[where]
        except (SafetensorError, OSError) as cause:
            raise ConfigError(f"{path}: {name} cannot be read: {cause}") from cause
        self._read_bytes(piece.nbytes)
        return piece

    def refuse_unread(self, layers: range) -> None:
        """A layer's tensor that nobody asked for means that the layer computes something we do not."""
        fronts = tuple(f"model.layers.{layer}." for layer in layers)
        rest = [name for name in self._files if name.startswith(fronts) and name not in self._used]
        rest = [name for name in rest if not name.endswith("rotary_emb.inv_freq")]
        if rest:
            raise ConfigError(f"{self._folder}: {len(rest)} tensors are not known here, the first is {rest[0]}")


class NoSource:
    """Tensors without contents; with FP8, as if every projection were stored so."""

    device = torch.device("meta")

    def __init__(self, *, fp8: bool) -> None:
        self._fp8 = fp8
        self._codes: set[str] = set()

    def has(self, name: str) -> bool:
        if self._fp8 and name.endswith(SCALE):
            self._codes.add(name.removesuffix(SCALE))
        return self._fp8 or not name.endswith(SCALE)

    def read(self, name: str, shape: Shape, where: tuple[slice, ...]) -> Tensor:
        dtype = torch.float8_e4m3fn if name in self._codes else torch.float32
        return torch.empty(shape, dtype=dtype, device="meta")[where]


def _files(folder: Path) -> dict[str, str]:
    """Which file holds which tensor."""
    index = folder / INDEX
    try:
        if index.exists():
            names = json.loads(index.read_text(encoding="utf-8"))
            return {str(name): str(file) for name, file in names["weight_map"].items()}
        with safe_open(folder / SINGLE_FILE, framework="pt", device="cpu") as file:
            return dict.fromkeys(file.keys(), SINGLE_FILE)
    except FileNotFoundError:
        raise ConfigError(f"{folder}: has neither {INDEX} nor {SINGLE_FILE}") from None
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as cause:
        raise ConfigError(f"{folder}: what its safetensors files hold cannot be read: {cause}") from cause
