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


@pytest.mark.parametrize(
    ("site", "said"),
    [
        ("return 5", "unreadable, defaults apply"),
        ("syntax error", "unreadable, defaults apply"),
        ("error('x')", "unreadable, defaults apply"),
        ('return {node_base_watts = "much"}', "node_base_watts must be a number; ignored"),
        ("return {node_base_watts = -1}", "node_base_watts must not be negative; ignored"),
        ("return {node_base_watts = 0/0}", "node_base_watts must not be negative; ignored"),
        ("return {admin_uids = 5}", "admin_uids must be a table; ignored"),
        ('return {default_class = "gold"}', "default_class must be firm, flexible or preemptible; ignored"),
        ("return {node_watts = 3}", "node_watts unknown; ignored"),
        ("return {[2] = 3}", "2 unknown; ignored"),
    ],
)
def test_a_bad_site_value_is_reported_and_its_default_applies(tmp_path: Path, site: str, said: str) -> None:
    with LuaSlurmctld(tmp_path, site=site) as slurmctld:
        (line,) = slurmctld.at_load.error
        assert "slurm_power_site.lua: " in line
        assert said in line
        assert slurmctld.submit(JOB).licenses == "watts:1900"
