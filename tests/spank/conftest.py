"""The plugin's parts that need no Slurm, compiled once as a plain library."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # helpers of this folder; tests are imported by path

SPANK = Path(__file__).resolve().parents[2] / "spank"
PURE_SOURCES = ("parse.c", "settings.c", "json.c", "agent_client.c")
STRICT = ("-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fPIC")


@pytest.fixture(scope="session")
def plugin_parts_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    library = tmp_path_factory.mktemp("spank") / "parts.so"
    sources = [str(SPANK / name) for name in PURE_SOURCES]
    subprocess.run(["cc", *STRICT, "-shared", "-o", str(library), *sources], check=True)
    return library


@pytest.fixture(scope="session")
def plugin_parts(plugin_parts_file: Path) -> ctypes.CDLL:
    return ctypes.CDLL(str(plugin_parts_file))
