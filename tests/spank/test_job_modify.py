"""`scontrol update job` cannot make a job's watts smaller, unless an administrator (or the controller) does it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from lua_slurmctld import UNSET, LuaSlurmctld, Value

SITE = "return {gpus_per_node = 4, admin_uids = {64030}}"
PENDING, RUNNING = 0, 1

pytestmark = pytest.mark.skipif(shutil.which("lua5.3") is None, reason="needs lua5.3")


@pytest.fixture(scope="module")
def slurmctld(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LuaSlurmctld]:
    with LuaSlurmctld(tmp_path_factory.mktemp("etc"), site=SITE) as lua:
        yield lua


def update(**fields: Value) -> dict[str, Value]:
    return {**UNSET, **fields}


@pytest.mark.parametrize("asked", ["watts:1", "firm_watts:1", "watts:1,firm_watts:1"])
def test_a_users_watts_are_put_back(slurmctld: LuaSlurmctld, asked: str) -> None:
    answer = slurmctld.modify(update(licenses=f"matlab:1,{asked}"), {"licenses": "watts:825"})
    assert answer.licenses == "matlab:1,watts:825"
    assert answer.user == [f"slurm-power: only an administrator may set {asked}; kept watts:825"]


@pytest.mark.parametrize("text", ["", "matlab:1"])
def test_watts_survive_an_update_of_the_users_own_licences(slurmctld: LuaSlurmctld, text: str) -> None:
    answer = slurmctld.modify(update(licenses=text), {"licenses": "ansys:2,watts:825"})
    assert answer.licenses == ",".join(filter(None, [text, "watts:825"]))
    assert answer.user == []


@pytest.mark.parametrize("uid", [0, 64030])
def test_an_administrator_may_set_them(slurmctld: LuaSlurmctld, uid: int) -> None:
    assert slurmctld.modify(update(licenses="watts:1"), {"licenses": "watts:825"}, uid=uid).licenses == "watts:1"


def test_an_update_of_something_else_is_left_alone(slurmctld: LuaSlurmctld) -> None:
    answer = slurmctld.modify(update(), {"licenses": "watts:825"})
    assert (answer.licenses, answer.admin_comment, answer.info) == (None, None, [])


def test_a_pending_job_that_grows_pays_for_it_at_its_own_cap(slurmctld: LuaSlurmctld) -> None:
    job = {
        "licenses": "matlab:1,watts:425",
        "admin_comment": "slurm-power:class=flexible,cap=300",
        "tres_per_node": "gres:gpu:1",
        "min_nodes": 1,
    }
    answer = slurmctld.modify(update(min_nodes=3, max_nodes=3), job)
    assert answer.licenses == "matlab:1,watts:1275"


def test_a_growing_firm_job_stays_firm(slurmctld: LuaSlurmctld) -> None:
    job = {"licenses": "firm_watts:825", "tres_per_job": "gres:gpu:1", "min_nodes": 1}
    assert slurmctld.modify(update(tres_per_job="gres:gpu:2"), job).licenses == "firm_watts:1650"


def test_a_pending_job_that_shrinks_keeps_its_watts(slurmctld: LuaSlurmctld) -> None:
    job = {"licenses": "watts:1650", "tres_per_job": "gres:gpu:2", "min_nodes": 1}
    assert slurmctld.modify(update(tres_per_job="gres:gpu:1"), job).licenses is None


def test_a_running_jobs_watts_are_the_controllers(slurmctld: LuaSlurmctld) -> None:
    job = {"licenses": "watts:425", "tres_per_node": "gres:gpu:1", "min_nodes": 1, "job_state": RUNNING}
    assert slurmctld.modify(update(min_nodes=3, max_nodes=3), job).licenses is None


def test_a_mistake_of_ours_never_fails_an_update(slurmctld: LuaSlurmctld) -> None:
    answer = slurmctld.modify({"explode": True}, {"licenses": "watts:825"})
    assert answer.rc == "0"
    assert "left alone after a mistake of ours" in answer.error[0]
