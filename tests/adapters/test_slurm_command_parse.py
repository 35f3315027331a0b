"""Reading squeue, sinfo and scontrol. The entries are cut from answers of a real 22.05.8; those of newer releases
follow the number objects and state lists that slurmrestd's data_parser documents."""

from __future__ import annotations

import json
from typing import Any

import pytest

from slurm_power.adapters.slurm_command_parse import (
    job_gpus,
    number,
    parse_array_names,
    parse_job,
    parse_jobs,
    parse_license_pools,
    parse_license_reservations,
    parse_node,
    parse_nodes,
    parse_version,
)
from slurm_power.errors import Unavailable
from slurm_power.relocation.jobs import JobState, LicensePool, LicenseReservation

RUNNING: dict[str, Any] = {
    "job_id": 1, "name": "sbatch", "job_state": "RUNNING", "state_reason": "None", "user_id": 65534,
    "user_name": "nobody", "account": "physics", "partition": "main", "nodes": "n[1-2]", "node_count": 2,
    "submit_time": 1795403838, "eligible_time": 1795403838, "start_time": 1795403839, "end_time": 1795404438,
    "time_limit": 10, "licenses": "watts:1650", "batch_flag": True, "requeue": True,
    "admin_comment": "slurm-power:class=flexible", "gres_detail": ["gpu:2(IDX:0-1)", "gpu:2(IDX:2-3)"],
    "tres_req_str": "cpu=1,mem=100M,node=1,billing=1",
    "tres_per_job": "gres:gpu:4", "array_job_id": 0, "array_task_id": None, "array_task_string": "", "tasks": 1,
}  # fmt: skip
PENDING = {
    **RUNNING, "job_id": 2, "job_state": "PENDING", "state_reason": "Licenses", "nodes": "", "start_time": 1795409999,
    "time_limit": None, "gres_detail": [],
}  # fmt: skip


def since_23_02(value: float | None) -> dict[str, object]:
    return {"set": value is not None, "infinite": False, "number": value or 0}


NEWER = {
    **RUNNING, "job_state": ["RUNNING"], "node_count": since_23_02(2), "submit_time": since_23_02(1795403838),
    "eligible_time": since_23_02(1795403838), "start_time": since_23_02(1795403839), "time_limit": since_23_02(10),
    "end_time": since_23_02(1795404438), "array_job_id": since_23_02(0), "array_task_id": since_23_02(None),
    "tasks": since_23_02(1),
}  # fmt: skip


def test_a_running_job_is_read() -> None:
    job = parse_job(RUNNING)
    assert (job.job_id, job.uid, job.user_name, job.partition) == (1, 65534, "nobody", "main")
    assert job.account == "physics"
    assert (job.state, job.gpus, job.node_names, job.node_count) == (JobState.RUNNING, 4, ("n1", "n2"), 2)
    assert (job.start_wall_s, job.end_wall_s, job.time_limit_s) == (1795403839, None, 600)
    assert (dict(job.licenses), job.batch, job.requeueable) == ({"watts": 1650}, True, True)


def test_both_generations_of_numbers_say_the_same() -> None:
    assert parse_job(NEWER) == parse_job(RUNNING)


def test_an_expected_start_is_not_a_start() -> None:
    job = parse_job(PENDING)
    assert (job.start_wall_s, job.begin_wall_s, job.time_limit_s, job.gpus) == (None, None, None, 4)


def test_a_begin_time_is_what_makes_a_job_eligible_later_than_its_submission() -> None:
    assert parse_job({**PENDING, "eligible_time": 1795407438}).begin_wall_s == 1795407438


def test_a_held_job_has_no_begin_time() -> None:
    assert parse_job({**PENDING, "eligible_time": 0, "state_reason": "JobHeldUser"}).begin_wall_s is None


def test_an_end_is_told_only_of_jobs_that_have_ended() -> None:
    assert parse_job({**RUNNING, "job_state": "COMPLETED"}).end_wall_s == 1795404438


def test_no_limit_is_no_limit() -> None:
    assert parse_job({**NEWER, "time_limit": {"set": True, "infinite": True, "number": 0}}).time_limit_s is None


@pytest.mark.parametrize(
    ("told", "state"),
    [
        ("CONFIGURING", JobState.RUNNING),
        ("COMPLETING", JobState.OTHER),
        ("SUSPENDED", JobState.SUSPENDED),
        ("STOPPED", JobState.SUSPENDED),
        ("NODE_FAIL", JobState.OTHER),
        (["RUNNING", "COMPLETING"], JobState.OTHER),
        (["RUNNING", "CONFIGURING"], JobState.RUNNING),
        (["PENDING", "REQUEUED"], JobState.PENDING),
        ("SOMETHING_NEW", JobState.OTHER),
    ],
)
def test_every_state_is_ours_or_not(told: object, state: JobState) -> None:
    assert parse_job({**RUNNING, "job_state": told}).state is state


def test_an_interactive_job_is_never_requeueable() -> None:
    assert not parse_job({**RUNNING, "batch_flag": False}).requeueable


@pytest.mark.parametrize(
    ("asked", "gpus"),
    [
        ({"tres_per_job": "gres:gpu:3"}, 3),
        ({"tres_per_node": "gres:gpu:2", "node_count": 2}, 4),
        ({"tres_per_task": "gres/gpu:1", "tasks": 8}, 8),
        ({"tres_per_socket": "gres:gpu:1", "sockets_per_node": 2, "node_count": 2}, 4),
        ({"tres_req_str": "cpu=8,node=2,gres/gpu=4", "tres_per_node": "gres/gpu:2"}, 4),
        ({}, 0),
    ],
)
def test_gpus_of_a_waiting_job_follow_from_how_it_asked(asked: dict[str, Any], gpus: int) -> None:
    assert job_gpus(asked) == gpus


@pytest.mark.parametrize(
    "damage",
    [
        {"job_state": None},
        {"submit_time": "yesterday"},
        {"submit_time": None},
        {"user_id": None},
        {"licenses": "watts:many"},
        {"nodes": "n[1-"},
        {"time_limit": True},
        {"time_limit": {"number": 5}},
    ],
)
def test_an_unreadable_job_is_refused_by_name(damage: dict[str, Any]) -> None:
    with pytest.raises(Unavailable):
        parse_job({**RUNNING, **damage})


@pytest.mark.parametrize("text", ["", "no json", "[]", "{}", '{"jobs": 5}', '{"jobs": [5]}'])
def test_an_unreadable_answer_is_refused(text: str) -> None:
    with pytest.raises(Unavailable, match="unreadable answer"):
        parse_jobs(text)


@pytest.mark.parametrize("value", ["5", True, [], "UNLIMITED"])
def test_what_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="not a number"):
        number(value)


@pytest.mark.parametrize("value", [None, 4294967294, 4294967295])
def test_slurms_words_for_nothing_are_none(value: object) -> None:
    assert number(value) is None


def test_array_records_are_named_so_that_a_request_reaches_only_them() -> None:
    waiting = {**PENDING, "job_id": 3, "array_job_id": 3, "array_task_string": "4-9,12%2"}
    running = {**RUNNING, "job_id": 5, "array_job_id": 3, "array_task_id": 1}
    cut = {**PENDING, "job_id": 8, "array_job_id": 8, "array_task_string": "1,3,5,..."}
    text = json.dumps({"jobs": [waiting, running, cut, RUNNING]})
    assert parse_array_names(text) == {3: "3_[4-9,12]", 5: "3_1", 8: "8", 1: "1"}


@pytest.mark.parametrize(
    ("told", "up", "state"),
    [
        ({"state": "idle", "state_flags": []}, True, "IDLE"),
        ({"state": "mixed", "state_flags": ["PLANNED"]}, True, "MIXED+PLANNED"),
        ({"state": "idle", "state_flags": ["DRAIN"]}, False, "IDLE+DRAIN"),
        ({"state": "mixed", "state_flags": ["NOT_RESPONDING"]}, False, "MIXED+NOT_RESPONDING"),
        ({"state": "down", "state_flags": ["NOT_RESPONDING"]}, False, "DOWN+NOT_RESPONDING"),
        ({"state": ["IDLE"]}, True, "IDLE"),
        ({"state": ["IDLE", "POWERED_DOWN"]}, False, "IDLE+POWERED_DOWN"),
        ({"state": "unknown"}, False, "UNKNOWN"),
    ],
)
def test_a_node_is_up_when_it_can_start_jobs(told: dict[str, Any], up: bool, state: str) -> None:
    node = parse_node({"name": "n1", "gres": "gpu:4(S:0)", **told})
    assert (node.gpus, node.up, node.state) == (4, up, state)


def test_a_node_without_a_state_is_refused() -> None:
    with pytest.raises(Unavailable, match="n1"):
        parse_nodes('{"nodes": [{"name": "n1", "gres": ""}]}')


def test_licence_pools_are_read() -> None:
    text = (
        "LicenseName=firm_watts Total=13200 Used=1650 Free=11550 Reserved=0 Remote=no\n"
        "LicenseName=watts Total=13200 Used=4125 Free=9075 Reserved=0 Remote=no\n"
    )
    assert parse_license_pools(text) == {
        "firm_watts": LicensePool("firm_watts", 13200, 1650),
        "watts": LicensePool("watts", 13200, 4125),
    }
    assert parse_license_pools("No licenses configured in Slurm.\n") == {}


def test_a_damaged_licence_pool_is_refused() -> None:
    with pytest.raises(Unavailable):
        parse_license_pools("LicenseName=watts Total=many Used=0")


def test_only_reservations_with_licences_are_read() -> None:
    text = (
        "ReservationName=slurm_power_x StartTime=1795407438 EndTime=1795411038 Duration=01:00:00 Nodes=(null) "
        "NodeCnt=0 CoreCnt=0 Features=(null) PartitionName=main Flags=IGNORE_JOBS,ANY_NODES TRES=(null) Users=root "
        "Groups=(null) Accounts=(null) Licenses=watts:9000 State=INACTIVE BurstBuffer=(null) Comment=Licenses=x:1\n"
        "ReservationName=maintenance StartTime=1795407438 EndTime=1795411038 Nodes=n1 Licenses=(null) State=INACTIVE\n"
    )
    assert parse_license_reservations(text) == [
        LicenseReservation("slurm_power_x", 1795407438.0, 1795411038.0, {"watts": 9000})
    ]
    assert parse_license_reservations("No reservations in the system\n") == []


def test_a_reservation_with_a_local_time_is_refused() -> None:
    with pytest.raises(Unavailable, match="slurm_power_x"):
        parse_license_reservations("ReservationName=slurm_power_x StartTime=2026-11-23T04:17:18 Licenses=watts:1\n")


def test_the_version_is_that_of_slurmctld() -> None:
    assert parse_version("SLURM_CONF = /x\nSLURM_VERSION           = 22.05.8\n") == "22.05.8"
    with pytest.raises(Unavailable):
        parse_version("")
