"""The SPANK options are one frozen list: in the plugin, on the wire, in job_submit.lua and in the plugin's README."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from slurm_power.gpu.wire import OPTIONS

ROOT = Path(__file__).resolve().parents[2]
VARIABLES = (
    "SLURM_POWER_GPU_CAP",
    "SLURM_POWER_GPU_CLOCK",
    "SLURM_POWER_CLASS",
    "SLURM_POWER_MAX_SLOWDOWN",
    "SLURM_POWER_MAX_DELAY",
)


def underscored(option: str) -> str:
    return option.replace("-", "_")


@pytest.fixture(scope="module")
def options_c() -> str:
    return (ROOT / "spank" / "options.c").read_text()


def test_the_plugin_registers_the_options_of_the_wire_in_their_order(options_c: str) -> None:
    table = options_c.split("power_options[OPTION_COUNT] = {")[1].split("\n};")[0]
    assert tuple(re.findall(r'\{ "([a-z-]+)",', table)) == OPTIONS


def test_every_option_has_its_environment_default(options_c: str) -> None:
    pairs = re.findall(r'\.ours = "(\w+)",\s*\.slurms = "SLURM_SPANK__SLURM_SPANK_OPTION_slurm_power_(\w+)"', options_c)
    assert pairs == list(zip(VARIABLES, map(underscored, OPTIONS), strict=True))


def test_job_submit_reads_the_same_options() -> None:
    script = (ROOT / "etc" / "job_submit.lua").read_text()
    assert sorted(re.findall(r'name = "(\w+)", parse', script)) == sorted(map(underscored, OPTIONS))


def test_the_readme_names_every_option_and_variable() -> None:
    readme = (ROOT / "spank" / "README.md").read_text()
    assert [name for name in (*(f"--{option}" for option in OPTIONS), *VARIABLES) if name not in readme] == []
