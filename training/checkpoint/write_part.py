"""One rank's part of one save: its file and index; on rank 0 also the wait for all others, and the publication."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from training.checkpoint.boxes import Box
from training.checkpoint.folder import PARTIAL, index_of, prune, publish, write_synced
from training.checkpoint.manifest import MANIFEST, FileEntry, Manifest, RankIndex, rank_file, rank_index_file
from training.checkpoint.tensor_file import Say, silent, write_tensors
from training.errors import StorageError

POLL_S = 0.05


class GivenUp(StorageError):
    """Another rank has failed; its line says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Save:
    """What is to be written. `given_up`: asked now and then; True when another rank has failed."""

    folder: Path
    name: str
    rank: int
    world_size: int
    keep: int
    manifest: Manifest
    """Without files."""

    given_up: Callable[[], bool] = lambda: False
    about_to: Say = silent

    @property
    def partial(self) -> Path:
        return self.folder / f"{self.name}{PARTIAL}"


def write_part(save: Save, tensors: Sequence[tuple[Box, Any]]) -> None:
    """Raise StorageError when the disk refuses, GivenUp when another rank has failed."""
    file = save.partial / rank_file(save.rank)
    written = write_tensors(file, {box.key: tensor for box, tensor in tensors}, about_to=_checked(save))
    boxes = tuple(box for box, _ in tensors)
    index = RankIndex(file=file.name, size_bytes=written.size_bytes, sha256=written.sha256, boxes=boxes)
    try:
        write_synced(save.partial / rank_index_file(save.rank), index.to_json(), about_to=save.about_to)
        if save.rank == 0:
            _complete(save)
    except OSError as cause:
        raise StorageError(f"{save.partial}: {cause.strerror}") from cause


def discard(save: Save) -> None:
    """Remove what a failed save has written; only once no rank writes any more."""
    shutil.rmtree(save.partial, ignore_errors=True)


def _complete(save: Save) -> None:
    files = [_wait_for(save, rank) for rank in range(save.world_size)]
    manifest = replace(save.manifest, files=tuple(files), written_at_unix_s=time.time())
    write_synced(save.partial / MANIFEST, manifest.to_json(), about_to=save.about_to)
    publish(save.folder, save.name, about_to=save.about_to)
    prune(save.folder, keep=save.keep, about_to=save.about_to)


def _wait_for(save: Save, rank: int) -> FileEntry:
    path = save.partial / rank_index_file(rank)
    while not path.exists():
        if save.given_up():
            raise GivenUp("another rank has failed")
        time.sleep(POLL_S)
    index = index_of(save.partial, path.name)
    found_bytes = (save.partial / index.file).stat().st_size
    if found_bytes != index.size_bytes:
        raise StorageError(f"{save.partial / index.file}: has {found_bytes} bytes, {index.size_bytes} were written")
    return FileEntry(
        name=index.file,
        size_bytes=index.size_bytes,
        sha256=index.sha256,
        index_name=path.name,
        index_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )


def _checked(save: Save) -> Say:
    def about_to(what: str) -> None:
        if save.given_up():
            raise GivenUp("another rank has failed")
        save.about_to(what)

    return about_to
