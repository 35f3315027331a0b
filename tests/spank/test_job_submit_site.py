"""slurm_power_site.lua: what a site may set, and that a bad one costs no submission."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from lua_slurmctld import UNSET, LuaSlurmctld, Value

JOB: dict[str, Value] = {**UNSET, "script": "#!/bin/sh\n", "environment": {}, "tres_per_job": "gres:gpu:2"}

pytestmark = pytest.mark.skipif(shutil.which("lua5.3") is None, reason="needs lua5.3")


@pytest.mark.parametrize(
    ("site", "licenses"),
    [
        pytest.param(None, "watts:1900", id="none-whole-nodes"),
        pytest.param("return {node_base_watts = 300}", "watts:1700", id="base"),
        pytest.param("return {gpu_max_watts = 400}", "watts:1300", id="board"),
        pytest.param("return {gpus_per_node = 8}", "watts:1525", id="share-of-a-node"),
        pytest.param('return {default_class = "firm"}', "firm_watts:1900", id="class"),
        pytest.param("return {max_watts = 1000}", "watts:1000", id="never-more-than-the-pool"),
    ],
)
def test_a_site_sets_its_own_numbers(tmp_path: Path, site: str | None, licenses: str) -> None:
    with LuaSlurmctld(tmp_path, site=site) as slurmctld:
        assert slurmctld.at_load.error == []
        assert slurmctld.submit(JOB).licenses == licenses


@pytest.mark.parametrize("site", ["return 5", "syntax error", "error('x')", 'return {node_base_watts = "much"}'])
def test_an_unreadable_site_is_reported_and_the_defaults_apply(tmp_path: Path, site: str) -> None:
    with LuaSlurmctld(tmp_path, site=site) as slurmctld:
        assert len(slurmctld.at_load.error) == 1
        assert "slurm_power_site.lua" in slurmctld.at_load.error[0]
        assert slurmctld.submit(JOB).licenses == "watts:1900"


def test_an_unknown_class_falls_back_to_flexible(tmp_path: Path) -> None:
    with LuaSlurmctld(tmp_path, site='return {default_class = "gold"}') as slurmctld:
        assert slurmctld.submit(JOB).licenses == "watts:1900"
