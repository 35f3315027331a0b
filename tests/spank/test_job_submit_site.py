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


TABLE = "1000 train_# 300\n1000 * 500\n1001 train_# 100\n1002 low 20\nnonsense\n1000 odd -5\n1003 top 900\n"


@pytest.mark.parametrize(
    ("uid", "name", "cap", "licenses", "mark"),
    [
        pytest.param(1000, "train_7", None, "watts:1100", "foreseen=300", id="its-own-name"),
        pytest.param(1000, "other", None, "watts:1500", "foreseen=500", id="its-owner"),
        pytest.param(1000, "two words", None, "watts:1500", "foreseen=500", id="a-name-that-is-no-key"),
        pytest.param(1000, "odd", None, "watts:1500", "foreseen=500", id="a-bad-line"),
        pytest.param(1001, "other", None, "watts:1900", None, id="unknown"),
        pytest.param(1002, "low", None, "watts:900", "foreseen=200", id="never-below-the-lowest-cap"),
        pytest.param(1003, "top", None, "watts:1900", None, id="no-less-than-the-board"),
        pytest.param(1000, "train_7", "250", "watts:1000", None, id="a-lower-cap-of-its-own"),
        pytest.param(1000, "train_7", "400", "watts:1100", "foreseen=300", id="a-higher-cap-of-its-own"),
    ],
)
def test_a_job_counts_what_earlier_ones_of_its_owner_and_name_drew(
    tmp_path: Path, uid: int, name: str, cap: str | None, licenses: str, mark: str | None
) -> None:
    table = tmp_path / "job_watts"
    table.write_text(TABLE)
    option = [] if cap is None else [f"_SLURM_SPANK_OPTION_slurm_power_gpu_power_cap={cap}"]
    with LuaSlurmctld(tmp_path, site=f'return {{job_watts_file = "{table}"}}') as slurmctld:
        answer = slurmctld.submit({**JOB, "name": name, "spank_job_env": option}, uid=uid)
    assert answer.licenses == licenses
    assert answer.admin_comment is not None
    foreseen = [pair for pair in answer.admin_comment.partition(":")[2].split(",") if pair.startswith("foreseen=")]
    assert foreseen == ([] if mark is None else [mark])


def test_without_the_table_every_job_counts_as_the_boards_maximum(tmp_path: Path) -> None:
    with LuaSlurmctld(tmp_path, site='return {job_watts_file = "/missing"}') as slurmctld:
        assert slurmctld.submit({**JOB, "name": "train"}).licenses == "watts:1900"
        assert slurmctld.at_load.error == []
