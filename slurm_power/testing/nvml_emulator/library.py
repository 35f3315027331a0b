"""Build and load the emulator's C library."""

from __future__ import annotations

import ctypes
import fcntl
import os
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from slurm_power.errors import Unavailable

SOURCES = Path(__file__).resolve().parent
LIBRARY_NAME = "libnvidia-ml.so.1"


class Reading(ctypes.Structure):
    """`struct emu_reading` of emulator.h."""

    draw_watts: float
    energy_joules: float
    limit_watts: float
    default_limit_watts: float
    temperature_celsius: float
    utilisation_fraction: float
    power_violation_s: float
    thermal_violation_s: float
    reasons: int
    clock_mhz: int
    lock_max_mhz: int
    fault: int
    minor: int
    uuid: bytes

    _fields_ = [
        ("draw_watts", ctypes.c_double),
        ("energy_joules", ctypes.c_double),
        ("limit_watts", ctypes.c_double),
        ("default_limit_watts", ctypes.c_double),
        ("temperature_celsius", ctypes.c_double),
        ("utilisation_fraction", ctypes.c_double),
        ("power_violation_s", ctypes.c_double),
        ("thermal_violation_s", ctypes.c_double),
        ("reasons", ctypes.c_uint64),
        ("clock_mhz", ctypes.c_uint32),
        ("lock_max_mhz", ctypes.c_uint32),
        ("fault", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("uuid", ctypes.c_char * 48),
    ]


NODE = ctypes.c_void_p
_SIGNATURES: dict[str, tuple[object, ...]] = {
    "emu_state_path": (ctypes.c_char_p, ctypes.c_uint),
    "emu_create": (ctypes.c_char_p, ctypes.c_uint, ctypes.c_double, ctypes.c_char_p),
    "emu_open": (ctypes.c_char_p, ctypes.POINTER(NODE)),
    "emu_close": (NODE,),
    "emu_gpu_count": (NODE,),
    "emu_base_watts": (NODE,),
    "emu_read": (NODE, ctypes.c_uint, ctypes.POINTER(Reading)),
    "emu_open_load": (NODE, ctypes.c_uint, ctypes.c_int, ctypes.c_double),
    "emu_close_load": (NODE, ctypes.c_uint, ctypes.c_int),
    "emu_work_done": (NODE, ctypes.c_uint, ctypes.c_int, ctypes.POINTER(ctypes.c_double)),
    "emu_set_fault": (NODE, ctypes.c_uint, ctypes.c_uint),
    "emu_set_limit": (NODE, ctypes.c_uint, ctypes.c_double),
    "emu_set_default_limit": (NODE, ctypes.c_uint, ctypes.c_double),
    "emu_set_mig": (NODE, ctypes.c_uint, ctypes.c_uint),
    "emu_pass_time": (NODE, ctypes.c_double),
    "emu_hold_lock": (NODE,),
}


def default_build_dir() -> Path:
    """build/nvml of the checkout; a private folder when the package is installed without one."""
    checkout = SOURCES.parents[2]
    if (checkout / "setup.cfg").is_file():
        return checkout / "build" / "nvml"
    folder = Path(tempfile.gettempdir()) / f"slurm-power-nvml-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise Unavailable(f"{folder} belongs to another user: not loading a library from there")
    return folder


def build_library(build_dir: Path | None = None) -> Path:
    """Folder that holds libnvidia-ml.so.1, compiled if older than its sources.

    Raises Unavailable with the compiler's words if it cannot be compiled.
    """
    folder = (build_dir or default_build_dir()).resolve()
    if not _is_current(folder / LIBRARY_NAME) and not _is_given(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _make(folder)
    return folder


def _is_current(library: Path) -> bool:
    try:
        built_s = library.stat().st_mtime
    except FileNotFoundError:
        return False
    sources = [*SOURCES.glob("*.c"), *SOURCES.glob("*.h"), SOURCES / "Makefile"]
    return all(source.stat().st_mtime <= built_s for source in sources)


def _is_given(folder: Path) -> bool:
    """Whether a job of another user has to take the library as it is; the state file's version guards it."""
    return (folder / LIBRARY_NAME).is_file() and not os.access(folder, os.W_OK)


def _make(folder: Path) -> None:
    command = ["make", "--silent", "-C", str(SOURCES), f"BUILD={folder}"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise Unavailable(f"cannot build the NVML emulator: {error.filename} not found") from error
    if result.returncode != 0:
        words = " ".join(result.stderr.split())[-500:]
        raise Unavailable(f"cannot build the NVML emulator: {words}")


@cache
def load_library() -> ctypes.CDLL:
    """The library, compiled if need be, with the types of its emu_* functions declared."""
    library = ctypes.CDLL(str(build_library() / LIBRARY_NAME))
    for name, argtypes in _SIGNATURES.items():
        getattr(library, name).argtypes = argtypes
    library.emu_close.restype = None
    library.emu_gpu_count.restype = ctypes.c_uint
    library.emu_base_watts.restype = ctypes.c_double
    library.nvmlErrorString.argtypes = (ctypes.c_int,)
    library.nvmlErrorString.restype = ctypes.c_char_p
    return library
