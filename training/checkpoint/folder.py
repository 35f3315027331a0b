"""The folder of a run's checkpoints: step-NNNNNNNN for each complete one; `latest` names the one to start from.

A checkpoint is written as step-NNNNNNNN.partial and renamed when all of it is on disk. What a crash leaves (.partial,
.deleting, .new) is never read and is removed at the next start. All nodes must see the same folder.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from training.checkpoint.manifest import MANIFEST, Manifest, RankIndex, read_index, read_manifest
from training.checkpoint.tensor_file import Say, file_sha256, silent
from training.errors import StorageError

LATEST = "latest"
PARTIAL, DELETING, NEW = ".partial", ".deleting", ".new"
_NAME = re.compile(r"step-(\d{8,})(?:-(\d+))?")


def checkpoint_name(step: int, attempt: int = 0) -> str:
    """`attempt` tells apart what a run that went back to an older checkpoint writes once more."""
    return f"step-{step:08d}" + (f"-{attempt}" if attempt else "")


def free_attempt(folder: Path, step: int) -> int:
    attempt = 0
    while (folder / checkpoint_name(step, attempt)).exists():
        attempt += 1
    return attempt


def complete_names(folder: Path) -> list[str]:
    """Last written first, which after a return to an older one need not be the highest step.

    Complete means: it was renamed. Whether it is still whole is for `damage` to say.
    """
    if not folder.is_dir():
        return []
    names = [path.name for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    return sorted(names, key=lambda name: (_written_at_unix_s(folder / name), name), reverse=True)


def _written_at_unix_s(checkpoint: Path) -> float:
    try:
        return manifest_of(checkpoint).written_at_unix_s
    except StorageError:
        return 0.0


def pointed(folder: Path) -> str | None:
    """What `latest` says; None without one."""
    try:
        return (folder / LATEST).read_text().strip() or None
    except OSError:
        return None


def candidates(folder: Path) -> Iterator[tuple[str, str | None]]:
    """Names to try one after the other: what `latest` names, then the others from the newest.

    With what is wrong with each as far as its sizes tell; None: nothing.
    """
    first = pointed(folder)
    names = complete_names(folder)
    if first is not None and first not in names:
        yield first, "is gone"
    for name in ([first] if first in names else []) + [name for name in names if name != first]:
        assert name is not None
        yield name, damage(folder / name)


def manifest_of(checkpoint: Path) -> Manifest:
    """Raise StorageError when there is none, or none that can be read."""
    try:
        return read_manifest((checkpoint / MANIFEST).read_text())
    except (OSError, UnicodeDecodeError) as cause:
        raise StorageError(f"{MANIFEST} cannot be read: {cause}") from cause
    except StorageError as cause:
        raise StorageError(f"{MANIFEST}: {cause}") from cause


def damage(checkpoint: Path) -> str | None:
    """What is wrong, judged without reading values; None: nothing."""
    try:
        manifest = manifest_of(checkpoint)
        for entry in manifest.files:
            if (checkpoint / entry.name).stat().st_size != entry.size_bytes:
                return f"{entry.name} is cut off"
            if file_sha256(checkpoint / entry.index_name) != entry.index_sha256:
                return f"{entry.index_name} is damaged"
    except StorageError as cause:
        return str(cause)
    except OSError as cause:
        return f"{Path(str(cause.filename)).name}: {cause.strerror}"
    return None


def damaged_values(checkpoint: Path, *, share: int = 0, shares: int = 1) -> str | None:
    """Read every `shares`-th file, from number `share` on, and compare checksums; what is wrong, or None."""
    for entry in manifest_of(checkpoint).files[share::shares]:
        try:
            if file_sha256(checkpoint / entry.name) != entry.sha256:
                return f"{entry.name} is damaged"
        except OSError as cause:
            return f"{entry.name}: {cause.strerror}"
    return None


def index_of(checkpoint: Path, name: str) -> RankIndex:
    """Raise StorageError when it cannot be read."""
    try:
        return read_index((checkpoint / name).read_text())
    except OSError as cause:
        raise StorageError(f"{checkpoint / name}: {cause.strerror}") from cause
    except StorageError as cause:
        raise StorageError(f"{checkpoint / name}: {cause}") from cause


def publish(folder: Path, name: str, *, about_to: Say = silent) -> None:
    """Make the partial checkpoint `name` the latest. Raise OSError when the disk refuses: `latest` stays as it was."""
    about_to("rename")
    (folder / f"{name}{PARTIAL}").rename(folder / name)
    about_to("sync folder")
    sync_folder(folder)
    about_to("point")
    write_synced(folder / LATEST, f"{name}\n", about_to=about_to)
    about_to("published")


def prune(folder: Path, *, keep: int, about_to: Say = silent) -> None:
    """Delete complete checkpoints older than the newest `keep`; never the one that `latest` names."""
    latest = pointed(folder)
    for name in [name for name in complete_names(folder) if name != latest][max(0, keep - 1) :]:
        doomed = folder / f"{name}{DELETING}"
        about_to("delete")
        try:
            (folder / name).rename(doomed)  # half of one must not look like a whole one
        except OSError:
            continue  # a checkpoint too many harms nobody; the next prune meets it again
        about_to("delete further")
        shutil.rmtree(doomed, ignore_errors=True)


def clean(folder: Path) -> list[str]:
    """Remove what crashed saves left; the names removed. Only while nobody writes."""
    left = (
        [path for path in folder.iterdir() if path.name.endswith((PARTIAL, DELETING, NEW))] if folder.is_dir() else []
    )
    for path in left:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return sorted(path.name for path in left)


def write_synced(path: Path, text: str, *, about_to: Say = silent) -> None:
    """Replace `path` in one move; on disk when this returns. Raise OSError when the disk refuses."""
    new = path.with_name(f"{path.name}{NEW}")
    with new.open("w") as file:
        about_to("write")
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    about_to("replace")
    new.replace(path)
    about_to("sync folder")
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
