"""C of ours, compiled for this machine's processor the first time it is wanted, and kept in the user's cache folder.

Without a compiler, or on a processor it does not suit, there is no library: callers then do without.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

log = logging.getLogger(__name__)

SOURCES = Path(__file__).parent / "c"
FLAGS = ("-std=gnu11", "-O3", "-march=native", "-fopenmp", "-fPIC", "-shared")
LIMIT_S = 120.0


@functools.cache
def c_library(name: str) -> ctypes.CDLL | None:
    """`c/NAME.c`. None, and a line in the log that says why, where it cannot be had.

    Its OpenMP is torch's: import torch first, and the loader finds that libgomp by its name. A second pool of threads
    would fight with the first one for the cores.
    """
    try:
        return ctypes.CDLL(str(_compiled(SOURCES / f"{name}.c")))
    except (OSError, subprocess.SubprocessError) as cause:
        said = getattr(cause, "stderr", None) or ""
        log.warning("%s.c cannot be used, slower code stands in: %s %s", name, cause, said[-500:])
        return None


def _compiled(source: Path) -> Path:
    """Two processes may do this at once: each compiles aside, and the last one's equal file stays."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise OSError("there is no C compiler")
    folder = _folder()
    library = folder / f"{source.stem}-{_key(compiler)}.so"
    if library.exists():
        return library
    handle, aside = tempfile.mkstemp(dir=folder, suffix=".so")
    os.close(handle)
    try:
        subprocess.run(
            [compiler, *FLAGS, str(source), "-o", aside, "-lm"],
            check=True,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        Path(aside).replace(library)
    finally:
        Path(aside).unlink(missing_ok=True)
    return library


def _folder() -> Path:
    """What lies here is loaded as code: nobody but us may write in it."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = root / "slurm-power" / "kernels"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
        ours = found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if ours and os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return _temporary_folder()


@functools.cache
def _temporary_folder() -> Path:
    """Of this process alone: a home that cannot be written is no reason to be slow."""
    return Path(tempfile.mkdtemp(prefix="slurm-power-kernels-"))


def _key(compiler: str) -> str:
    """Of everything the library depends on; a home may be shared by machines with other processors."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    version = subprocess.run([compiler, "--version"], check=True, capture_output=True, timeout=LIMIT_S).stdout
    digest.update(" ".join(FLAGS).encode() + version + _processor().encode())
    return digest.hexdigest()[:16]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    return platform.machine() + "".join(
        sorted({line for line in lines if line.startswith(("model", "flags", "Features"))})
    )
