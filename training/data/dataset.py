"""A tokenised text on disk: one flat file of token ids, memory-mapped, and a JSON file that says what it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from training.errors import ConfigError, StorageError

TOKENS_FILE, META_FILE, TOKENIZER_FILE = "tokens.bin", "dataset.json", "tokenizer.json"
VERSION = 1

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetMeta:
    version: int
    tokens: int
    dtype: str
    """"uint16" or "uint32", little-endian."""

    vocabulary_size: int
    tokenizer: str
    """"bytes", or "tokenizer.json": the file beside this one."""

    separator: int
    """Token id that ends each document."""

    documents: int
    sha256: str
    """Of tokens.bin."""

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


class TokenDataset:
    def __init__(self, folder: Path) -> None:
        """Raise ConfigError, in one line, for what is no dataset or does not hold what its dataset.json says."""
        self.folder = folder
        self.meta = read_meta(folder)
        path = folder / TOKENS_FILE
        expected_bytes = self.meta.tokens * np.dtype(self.meta.dtype).itemsize
        try:
            found_bytes = path.stat().st_size
        except OSError as cause:
            raise ConfigError(f"dataset = {folder}: {TOKENS_FILE}: {cause.strerror}") from cause
        if found_bytes != expected_bytes:
            rule = f"has {found_bytes} bytes, {META_FILE} says {expected_bytes}: cut off or damaged, prepare it again"
            raise ConfigError(f"dataset = {folder}: {TOKENS_FILE} {rule}")
        self._ids = np.memmap(path, dtype=np.dtype(self.meta.dtype).newbyteorder("<"), mode="r")

    def sequences(self, sequence_length: int) -> int:
        """How many sequences of `sequence_length` tokens, each with the token that follows it."""
        return max(0, (self.meta.tokens - 1) // sequence_length)

    def sequence(self, index: int, sequence_length: int) -> Ids:
        """Ids [sequence_length + 1]: tokens, and one further so that each has its next.

        Raise StorageError for an id that the vocabulary does not have.
        """
        start = index * sequence_length
        ids: Ids = self._ids[start : start + sequence_length + 1].astype(np.int64)
        if ids.max() >= self.meta.vocabulary_size:
            found = f"token {start + int(ids.argmax())} is {ids.max()}"
            rule = f"beyond the vocabulary of {self.meta.vocabulary_size}: damaged, prepare it again"
            raise StorageError(f"dataset = {self.folder}: {found}, {rule}")
        return ids

    def verify(self) -> None:
        """Read everything. Raise StorageError when the file is not the one that was prepared."""
        with (self.folder / TOKENS_FILE).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != self.meta.sha256:
            raise StorageError(f"dataset = {self.folder}: {TOKENS_FILE} is damaged (sha256), prepare it again")


def read_meta(folder: Path) -> DatasetMeta:
    path = folder / META_FILE
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(
            f"dataset = {folder}: no {META_FILE} there; make one with slurm-power-train prepare"
        ) from None
    except OSError as cause:
        raise ConfigError(f"dataset = {folder}: {META_FILE}: {cause.strerror}") from cause
    except ValueError as cause:
        raise ConfigError(f"dataset = {folder}: {META_FILE} is damaged: {cause}") from cause
    return _meta(values, folder)


def _meta(values: Any, folder: Path) -> DatasetMeta:
    kinds: Mapping[str, type] = {field.name: {"int": int, "str": str}[str(field.type)] for field in fields(DatasetMeta)}
    if not isinstance(values, dict) or any(type(values.get(name)) is not kind for name, kind in kinds.items()):
        raise ConfigError(f"dataset = {folder}: {META_FILE} is damaged: must hold {', '.join(kinds)}")
    if values["version"] != VERSION or values["dtype"] not in ("uint16", "uint32"):
        rule = f"version {values['version']} of {values['dtype']}, this program reads version {VERSION}"
        raise ConfigError(f"dataset = {folder}: {META_FILE} is {rule}; prepare it again")
    return DatasetMeta(**{name: values[name] for name in kinds})
