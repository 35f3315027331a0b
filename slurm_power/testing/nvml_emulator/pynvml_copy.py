"""A private pynvml bound to one library file, so that one process can use several (emulated and real)."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from itertools import count
from pathlib import Path
from typing import Any

from slurm_power.errors import Unavailable

_copies = count()


def pynvml_on(library_file: Path) -> Any:
    """A fresh copy of the pynvml module whose calls go to `library_file`; `import pynvml` is not affected."""
    installed = importlib.util.find_spec("pynvml")
    if installed is None or installed.origin is None:
        raise Unavailable("nvidia-ml-py is not installed")
    name = f"_pynvml_copy_{next(_copies)}"
    spec = importlib.util.spec_from_file_location(name, installed.origin)
    if spec is None or spec.loader is None:
        raise Unavailable(f"{installed.origin} is no Python module")
    module: Any = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pynvml looks itself up there while it is imported
    spec.loader.exec_module(module)
    module.nvmlLib = ctypes.CDLL(str(library_file))  # pynvml loads one by its soname only while this is None
    return module
