"""What a checkpoint says of itself: manifest.json for the whole, rank-NNNN.json for each rank's file. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar, cast

from training.checkpoint.boxes import Box
from training.errors import StorageError

VERSION = 1
MANIFEST = "manifest.json"

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where the run stands."""

    step: int
    sequences_consumed: int
    learning_rate: float
    seed: int
    """Of the order of the text; nothing else in training is random after the first weights."""

    global_sequences: int
    sequence_length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One rank's file, and the JSON beside it."""

    name: str
    size_bytes: int
    sha256: str
    index_name: str
    index_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    version: int = VERSION
    progress: Progress
    model: Mapping[str, Any]
    """As config.json of Hugging Face has it."""

    plan: Mapping[str, Any]
    """Of the ranks that wrote; any other may read."""

    config: Mapping[str, Any]
    """The run's config, for a person."""

    files: tuple[FileEntry, ...]
    written_at_unix_s: float

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, default=str) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class RankIndex:
    """Written last by its rank: that it exists says that the file beside it is whole."""

    file: str
    size_bytes: int
    sha256: str
    boxes: tuple[Box, ...]

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":")) + "\n"


def rank_file(rank: int) -> str:
    return f"rank-{rank:04d}.safetensors"


def rank_index_file(rank: int) -> str:
    return f"rank-{rank:04d}.json"


def read_manifest(text: str) -> Manifest:
    """Raise StorageError for anything but a manifest of this version."""
    values = _object(text, Manifest)
    if values["version"] != VERSION:
        raise StorageError(f"version {values['version']}, this program reads {VERSION}")
    files = tuple(FileEntry(**_fields(each, FileEntry)) for each in values["files"])
    return Manifest(**{**values, "progress": Progress(**_fields(values["progress"], Progress)), "files": files})


def read_index(text: str) -> RankIndex:
    values = _object(text, RankIndex)
    return RankIndex(**{**values, "boxes": tuple(_box(each) for each in values["boxes"])})


def _box(values: Any) -> Box:
    known = _fields(values, Box)
    shapes = {key: tuple(known[key]) for key in ("full_shape", "start", "shape")}
    return Box(known["name"], known["kind"], **shapes)


def _object(text: str, owner: type[T]) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except ValueError as cause:
        raise StorageError(f"not JSON: {cause}") from cause
    return _fields(values, owner)


def _fields(values: Any, owner: type[T]) -> dict[str, Any]:
    names = {field.name for field in fields(cast(Any, owner))}
    if not isinstance(values, dict) or set(values) != names:
        raise StorageError(f"not a {owner.__name__}: must hold {', '.join(sorted(names))}")
    return values
