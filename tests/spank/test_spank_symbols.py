"""The library shows Slurm its entry points and nothing else, and hides nothing behind a warning."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SPANK = Path(__file__).resolve().parents[2] / "spank"
EXPORTED = {
    "plugin_name",
    "plugin_type",
    "plugin_version",
    "spank_plugin_version",
    "slurm_spank_init",
    "slurm_spank_job_prolog",
    "slurm_spank_job_epilog",
    "slurm_spank_task_init_privileged",
}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not Path("/usr/include/slurm/spank.h").exists() or not all(map(shutil.which, ("cc", "make", "nm"))):
        pytest.skip("needs cc, make, nm and Slurm's headers (libslurm-dev)")
    build = tmp_path_factory.mktemp("spank_build")
    subprocess.run(["make", "-C", str(SPANK), f"BUILD={build}"], check=True, capture_output=True)
    return build / "slurm_power.so"


def symbols(library: Path, *flags: str) -> set[str]:
    listing = subprocess.run(["nm", "-D", *flags, str(library)], check=True, capture_output=True, text=True).stdout
    return {line.split()[-1].split("@")[0] for line in listing.splitlines()}


def test_only_slurms_entry_points_are_exported(library: Path) -> None:
    assert symbols(library, "--defined-only") == EXPORTED


def test_nothing_is_asked_of_slurm_but_the_spank_interface_and_its_log(library: Path) -> None:
    foreign = {name for name in symbols(library, "--undefined-only") if name.startswith(("slurm", "spank"))}
    assert {name for name in foreign if name.startswith("slurm")} <= {"slurm_error", "slurm_info"}
    assert all(name.startswith("spank_") for name in foreign if not name.startswith("slurm"))
