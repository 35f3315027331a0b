"""Reads a checkpoint for any plan: each rank takes the parts it needs, whoever wrote them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from training.checkpoint.agreement import Agreement, agree_on
from training.checkpoint.boxes import Box, parts_of
from training.checkpoint.folder import candidates, damaged_values, index_of, manifest_of
from training.checkpoint.tensor_file import TensorFiles


class StoredState:
    """The tensors of one checkpoint, read from disk when asked for."""

    def __init__(self, checkpoint: Path) -> None:
        """Raise StorageError when it cannot be read."""
        self.checkpoint = checkpoint
        self.manifest = manifest_of(checkpoint)
        self._file_of: dict[Box, str] = {}
        self._boxes: dict[tuple[str, str], list[Box]] = {}
        for entry in self.manifest.files:
            for box in index_of(checkpoint, entry.index_name).boxes:
                self._file_of[box] = entry.name
                self._boxes.setdefault((box.name, box.kind), []).append(box)
        self._files = TensorFiles(checkpoint)

    def shapes(self, kind: str) -> Mapping[str, tuple[int, ...]]:
        """Full shapes of all tensors of a kind, by name."""
        return {name: boxes[0].full_shape for (name, of), boxes in self._boxes.items() if of == kind}

    def has(self, name: str, kind: str) -> bool:
        return (name, kind) in self._boxes

    def read(self, wanted: Box) -> Any:
        """On the CPU, in the dtype that was stored. Raise StorageError when it is not all there."""
        parts = parts_of(wanted, self._boxes)
        if len(parts) == 1:
            stored, part = parts[0]
            return self._files.read(self._file_of[stored], stored, part)
        values = None
        for stored, part in parts:
            found = self._files.read(self._file_of[stored], stored, part)
            values = torch.empty(wanted.shape, dtype=found.dtype) if values is None else values
            values[part.inside(wanted)] = found
        return values

    def whole(self, name: str, kind: str) -> Any:
        shape = self.shapes(kind)[name]
        return self.read(Box(name, kind, shape, (0,) * len(shape), shape))


def find_checkpoint(folder: Path, agreement: Agreement) -> tuple[Path | None, list[str]]:
    """The checkpoint to start from, and a line for each that had to be passed over; the same on all ranks.

    All values are read once to compare checksums, the ranks sharing the files. Collective.
    """
    warnings: list[str] = []
    tried = candidates(folder) if agreement.rank == 0 else iter(())
    while True:
        name = ""
        for name, problem in tried:
            if problem is None:
                break
            warnings.append(f"checkpoint {folder / name}: {problem}; falling back")
        else:
            name = ""
        name = agreement.gather(name.encode())[0].decode()
        if not name:
            return None, _shared(warnings, agreement)
        problem = damaged_values(folder / name, share=agreement.rank, shares=agreement.world_size)
        problem = agree_on(agreement, problem)
        if problem is None:
            return folder / name, _shared(warnings, agreement)
        warnings.append(f"checkpoint {folder / name}: {problem}; falling back")


def _shared(warnings: list[str], agreement: Agreement) -> list[str]:
    text = agreement.gather("\n".join(warnings).encode())[0].decode()
    return text.splitlines()
