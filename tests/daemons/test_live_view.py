"""The dashboard's parts: columns that fit each other, unknowns that stay unknown, the touched jobs first."""

from __future__ import annotations

import json

from slurm_power.daemons.controller_view import ControllerView, Event
from slurm_power.daemons.live_view import EVENTS_SHOWN, JOBS_SHOWN, feed_json, gpu_sums_json, gpus_json, jobs_live_json
from slurm_power.monitoring.readings import GpuReading, NodeReading
from slurm_power.relocation.job_mark import JobMark, with_mark
from slurm_power.relocation.jobs import Job, JobState
from tests.web.made_up_site import MadeUpSite


def gpu(draw_watts: float | None, *, source: str = "found") -> GpuReading:
    return GpuReading("GPU-a", draw_watts, 1.0, 1500, 60.4, 0.5, 700.0, source, 7)


def job(job_id: int, state: JobState, reason: str = "None", *, capped: float | None = None) -> Job:
    return Job(
        job_id=job_id, user_name="ann", uid=1, name="n", partition="main", state=state, state_reason=reason, gpus=1,
        node_names=(), submit_wall_s=0.0, begin_wall_s=None, start_wall_s=None, time_limit_s=None, licenses={},
        batch=True, requeueable=True, admin_comment=with_mark("", JobMark(capped_watts=capped)),
    )  # fmt: skip


def test_gpus_are_columns_of_one_length_and_a_silent_nodes_draw_is_unknown() -> None:
    nodes = {"n2": NodeReading("n2", None, (gpu(300.4),), 90.0), "n1": NodeReading("n1", None, (gpu(100.0),) * 2, 10.0)}
    found = gpus_json(nodes, now_s=100.0, fresh_names=["n2"])
    assert found["nodes"] == ["n1", "n2"]
    assert found["counts"] == [2, 1]
    assert found["ages_s"] == [90.0, 10.0]
    assert found["draw_watts"] == [None, None, 300]
    assert found["source"] == [None, None, 0]
    assert {len(found[name]) for name in ("draw_watts", "cap_watts", "source", "celsius", "job_id")} == {3}


def test_no_number_that_json_lacks_is_sent() -> None:
    nodes = {"n1": NodeReading("n1", None, (gpu(float("nan")), gpu(float("inf"))), 0.0)}
    assert gpus_json(nodes, now_s=0.0, fresh_names=nodes)["draw_watts"] == [None, None]


def test_a_sum_with_an_unknown_part_is_unknown_and_the_known_part_is_told_beside_it() -> None:
    nodes = [NodeReading("n1", 500.0, (gpu(300.0, source="lease"), gpu(None)), 0.0)]
    sums = gpu_sums_json(nodes)
    assert (sums["draw_watts"], sums["known_watts"], sums["nodes_watts"]) == (None, 300.0, 0)
    assert sums["by_source"] == {"lease": 1, "found": 1}


def test_of_many_jobs_those_we_touched_come_first_and_all_are_counted() -> None:
    running = [job(i, JobState.RUNNING) for i in range(1000)]
    waiting = [job(2000, JobState.PENDING, "Priority"), job(2001, JobState.PENDING, "Licenses")]
    capped = [job(3000, JobState.RUNNING, capped=300.0)]
    found = jobs_live_json(ControllerView(jobs=[*running, *waiting, *capped]))
    assert [one["job_id"] for one in found["shown"]][:3] == [2001, 3000, 2000]
    assert len(found["shown"]) == JOBS_SHOWN
    assert (found["running"], found["waiting"], found["waiting_for_watts"], found["capped"]) == (1001, 2, 1, 1)


def test_decisions_are_newest_first_and_not_all_of_them() -> None:
    events = [Event(float(i), "cap", f"job {i}", "x") for i in range(500)]
    found = feed_json(events)
    assert len(found) == EVENTS_SHOWN
    assert found[0]["subject"] == "job 499"


def test_a_thousand_nodes_cost_little_to_send() -> None:
    site = MadeUpSite(nodes=1000)
    text = json.dumps(site.live.gpus(), separators=(",", ":"))
    assert len(text) < 200_000
