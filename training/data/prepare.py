"""Makes a dataset out of text files. The folder appears complete or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from training.data.dataset import META_FILE, TOKENIZER_FILE, TOKENS_FILE, VERSION, DatasetMeta
from training.data.encoders import Encoder, encoder
from training.errors import ConfigError, StorageError

Progress = Callable[[int, int], None]
"""Called with bytes of text done and in all."""


def prepare(
    paths: Iterable[Path],
    folder: Path,
    *,
    tokenizer: str = "bytes",
    pattern: str = "*",
    progress: Progress = lambda done_bytes, total_bytes: None,
) -> DatasetMeta:
    """One document per file, each followed by the separator; empty files are left out.

    `paths`: files, or folders to be searched for `pattern`. `tokenizer`: see training.data.encoders.encoder.
    Raise ConfigError for files that cannot be read and a folder that exists, StorageError when the disk refuses.
    """
    files = find_files(paths, pattern)
    if folder.exists():
        raise ConfigError(f"folder = {folder}: exists already; choose another or remove it")
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)  # of an earlier call that was killed
        partial.mkdir(parents=True)
        meta = _write(files, partial, encoder(tokenizer, files), progress)
        partial.rename(folder)
        _sync(folder.parent)
    except OSError as cause:
        raise StorageError(f"folder = {folder}: {cause.strerror}") from cause
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return meta


def find_files(paths: Iterable[Path], pattern: str = "*") -> list[Path]:
    """Every file in its given order, folders opened in order of name. Raise ConfigError when there is none."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(found for found in path.rglob(pattern) if found.is_file())
        elif path.is_file():
            files.append(path)
        else:
            raise ConfigError(f"{path}: no such file or folder")
    files = [path for path in files if path.stat().st_size > 0]
    if not files:
        raise ConfigError(f"files = (none): no file with text in it matches {pattern!r}")
    return files


def _write(files: Sequence[Path], folder: Path, encoding: Encoder, progress: Progress) -> DatasetMeta:
    dtype = np.dtype("<u2" if encoding.vocabulary_size <= 1 << 16 else "<u4")
    total_bytes = sum(path.stat().st_size for path in files)
    done_bytes = tokens = 0
    digest = hashlib.sha256()
    with (folder / TOKENS_FILE).open("wb") as output:
        for path in files:
            for ids in chain(encoding.encode(path), [np.array([encoding.separator])]):
                data = ids.astype(dtype).tobytes()
                output.write(data)
                digest.update(data)
                tokens += len(ids)
            done_bytes += path.stat().st_size
            progress(done_bytes, total_bytes)
        output.flush()
        os.fsync(output.fileno())
    meta = DatasetMeta(
        version=VERSION,
        tokens=tokens,
        dtype=dtype.name,
        vocabulary_size=encoding.vocabulary_size,
        tokenizer=TOKENIZER_FILE if encoding.save(folder / TOKENIZER_FILE) else "bytes",
        separator=encoding.separator,
        documents=len(files),
        sha256=digest.hexdigest(),
    )
    with (folder / META_FILE).open("w") as output:
        output.write(meta.to_json())
        output.flush()
        os.fsync(output.fileno())
    return meta


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
