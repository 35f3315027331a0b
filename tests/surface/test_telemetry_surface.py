"""docs/telemetry.md is the frozen list of measurements, tags and fields; here the code is held to it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from job_wrappers import run as run_wrapper
from job_wrappers.serving.launch.telemetry import ServingTelemetry
from job_wrappers.training.telemetry import TelemetryListener
from slurm_power.daemons.controller_record import decision_points, plan_points, site_point
from slurm_power.daemons.controller_view import Event, FastView
from slurm_power.daemons.job_records import job_point as slurm_job_point
from slurm_power.daemons.node_agent_gpu import ManagedGpu
from slurm_power.daemons.node_agent_samples import SampleKeeper
from slurm_power.daemons.node_agent_views import (
    GpuView,
    allocation_point,
    gpu_point,
    job_point,
    node_energy_point,
    node_point,
)
from slurm_power.daemons.site_history import SiteHistory
from slurm_power.ess.plan import DispatchPlan, PlanSlot
from slurm_power.gpu.borrowing import Borrow, Knob
from slurm_power.gpu.caps import CapSources, ClockSources, effective_cap, effective_clock
from slurm_power.gpu.local_request import POINT_PREFIXES, Points, RawPoint, parse_request
from slurm_power.monitoring.energy import Used
from slurm_power.monitoring.energy_marks import Count
from slurm_power.monitoring.readings import EssReading, GridReading
from slurm_power.ports.telemetry_rules import storable
from slurm_power.ports.telemetry_store import Point
from slurm_power.relocation.jobs import Job, JobState
from slurm_power.relocation.queue_state import queue_state
from slurm_power.testing.fake_gpu import FakeGpu
from tests.job_wrappers.engine_status import engine_status
from tests.job_wrappers.step_records import step_record
from training.run.listener import RunEvent

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "telemetry.md").read_text()
WALL_S = 1.7e9
A_COUNT = Count(WALL_S, 5.0, Used(1.0, 2.0, 3.0), energy_joules=4.0)


def sections() -> dict[str, str]:
    parts = re.split(r"^## (\w+)\n", PAGE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def documented_fields(measurement: str) -> list[str]:
    return re.findall(r"^\| `(\w+)` \|", sections()[measurement], re.MULTILINE)


def documented_tags(measurement: str) -> set[str]:
    sentence = re.search(r"Tags? (`\w+`(?:, `\w+`)*)", sections()[measurement])
    return set(re.findall(r"`(\w+)`", sentence.group(1))) if sentence else set()


def the_plan() -> DispatchPlan:
    slot = PlanSlot(WALL_S, 900.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)
    return DispatchPlan(made_wall_s=WALL_S, target_watts=1.0, slots=(slot,), cost=0.0)


def the_site() -> Point | None:
    fast = FastView(
        grid=GridReading(1.0, 0.0, 0.0),
        ess=EssReading(0.5, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0, True, (), 0.0),
        interval_average_watts=1.0,
    )
    return site_point(fast, the_plan(), it_watts=1.0, it_wanted_watts=1.0, inflexible_watts=1.0, wall_s=WALL_S)


def the_slot() -> list[Point]:
    history = SiteHistory(keep_s=1000.0, slot_s=10.0, max_gap_s=10.0)
    for second in (0.0, 10.0):
        history.add(WALL_S + second, inflexible_watts=1.0, it_wanted_watts=1.0)
        history.add_queue(WALL_S + second, queue_state([], wall_s=WALL_S))
        told = history.closed_slots(WALL_S + second)
    return told


def a_gpu() -> GpuView:
    gpu = ManagedGpu(FakeGpu())
    gpu.take_sample(now_s=0.0)
    gpu.carry_out(Knob.CLOCK, Borrow(1200), now_s=0.0)
    cap = effective_cap(CapSources(found_watts=700.0, min_watts=200.0, max_watts=700.0))
    return GpuView(gpu, cap, effective_clock(ClockSources(345, 1980)), job_id=7)


class ListeningAgent:
    """Stands where slurm-power-run expects its agent, and keeps what it is sent."""

    sent: list[RawPoint]

    def __init__(self) -> None:
        self.sent = []

    def my_gpus(self, job_id: int) -> tuple[str, ...]:
        return ("GPU-a",)

    def send_points(self, job_id: int, points: Sequence[Mapping[str, object]]) -> None:
        lines = json.dumps({"op": "points", "job_id": job_id, "points": list(points)}).encode()
        request = parse_request(lines)
        assert isinstance(request, Points)
        self.sent += request.points


@pytest.fixture
def job_run_points(monkeypatch: pytest.MonkeyPatch) -> list[Point]:
    """What slurm-power-run sends when all goes well, as the agent stamps it."""
    agent = ListeningAgent()
    joules = iter((100.0, 700.0))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    monkeypatch.setattr("job_wrappers.run.AgentClient.from_environment", lambda: agent)
    monkeypatch.setattr(run_wrapper, "read_energy_joules", lambda uuids: dict.fromkeys(uuids, next(joules)))
    assert run_wrapper.run(["true"]) == 0
    return [job_point(raw, job_id=7, uid=1000, node_name="n1") for raw in agent.sent]


def test_site_plan_and_decision_are_as_documented() -> None:
    events = [Event(WALL_S, "cap", "job 7", "too much"), Event(WALL_S, "defer", "job 8", "too late", "no")]
    points = [the_site(), *the_slot(), *plan_points(the_plan(), wall_s=WALL_S), *decision_points(events)]
    assert [point.measurement for point in points if point] == ["site", "slot", "plan", "decision", "decision"]
    for point in points:
        assert_as_documented(point)


def test_gpu_node_and_allocation_are_as_documented() -> None:
    view = a_gpu()
    points = [
        gpu_point(view, node_name="n1", wall_s=WALL_S),
        node_point([view.gpu], base_watts=500.0, cpu_watts=180.0, node_name="n1", wall_s=WALL_S),
        allocation_point("GPU-a", job_id=7, uid=1000, event="begin", node_name="n1", wall_s=WALL_S, count=A_COUNT),
        node_energy_point(
            node_name="n1", wall_s=WALL_S, life_wall_s=WALL_S, up_s=5.0, gpus=8, cpu_joules=1.0, rest_joules=2.0
        ),
    ]
    assert [point.measurement for point in points if point] == ["gpu", "node", "gpu_allocation", "node_energy"]
    for point in points:
        assert_as_documented(point)


def test_what_quality_reports_are_made_of_is_as_documented() -> None:
    keeper = SampleKeeper(node_name="n1", seal_period_s=300.0)
    points = [*keeper.keep([a_gpu()], wall_s=WALL_S), *keeper.seal_all()]
    assert [point.measurement for point in points] == ["gpu_board", "gpu_block"]
    for point in points:
        assert_as_documented(point)


def test_a_job_is_as_documented() -> None:
    job = Job(
        job_id=7, user_name="ann", uid=1000, name="train", partition="main", state=JobState.OTHER, state_reason="None",
        gpus=8, node_names=("n1",), submit_wall_s=WALL_S, begin_wall_s=None, start_wall_s=WALL_S, time_limit_s=None,
        licenses={}, batch=True, requeueable=True, admin_comment="", end_wall_s=WALL_S + 1, account="physics",
    )  # fmt: skip
    assert_as_documented(slurm_job_point(job, wall_s=WALL_S))


def test_the_run_wrappers_points_are_as_documented(job_run_points: list[Point]) -> None:
    start, end = job_run_points
    assert (start.fields["event"], end.fields["event"]) == ("start", "end")
    assert set(start.fields) == {"event", "gpus", "job_id", "uid"}
    assert_as_documented(end)


def test_a_trainings_points_are_as_documented() -> None:
    agent = ListeningAgent()
    joules = iter((0.0, 50.0))
    listener = TelemetryListener(agent, 7, used_joules=lambda: next(joules))  # type: ignore[arg-type]
    for step in (1, 2):
        listener.on_step(step_record(step=step, ended_at_unix_s=WALL_S + step))
    listener.on_event(RunEvent(kind="resumed", text="from step 1", step=1, at_unix_s=WALL_S))
    listener.close()
    points = [job_point(raw, job_id=7, uid=1000, node_name="n1") for raw in agent.sent]
    assert [point.measurement for point in points] == [*["training_step", "training_stage"] * 2, "training_event"]
    for point in points[2:]:  # of the first step's energy nothing is known yet
        assert_as_documented(point)


def test_a_servers_points_are_as_documented() -> None:
    agent = ListeningAgent()
    telemetry = ServingTelemetry(agent, 7, engine_status, every_s=60.0)  # type: ignore[arg-type]
    telemetry.start("serving chat at http://n1:8000")
    telemetry.close()
    points = [job_point(raw, job_id=7, uid=1000, node_name="n1") for raw in agent.sent]
    names = ["serving_event", "serving_status", "serving_class", "serving_class", *["serving_event"] * 3]
    assert [point.measurement for point in points] == names
    for point in points:
        assert_as_documented(point)


def test_every_documented_measurement_is_checked_here() -> None:
    ours = ["site", "slot", "plan", "decision", "job", "gpu", "gpu_block", "gpu_board", "node", "gpu_allocation"]
    ours += ["node_energy", "job_run"]
    trainings = ["training_step", "training_stage", "training_event"]
    assert list(sections()) == [*ours, *trainings, "serving_status", "serving_class", "serving_event"]


def test_no_measurement_is_written_that_the_page_does_not_name() -> None:
    files = [*ROOT.glob("slurm_power/daemons/*.py"), *ROOT.glob("job_wrappers/**/*.py")]
    named = {name for file in files for name in re.findall(r'Point\(\s*"(\w+)"', file.read_text())}
    named |= {name for file in files for name in re.findall(r'"measurement": "(\w+)"', file.read_text())}
    named |= {name for file in files for name in re.findall(r'_point\(\s*"(serving_\w+)"', file.read_text())}
    assert "decision" in named
    assert named <= set(sections())


def test_the_page_names_what_a_job_may_write_itself() -> None:
    assert [prefix for prefix in POINT_PREFIXES if f"`{prefix}`" not in PAGE] == []


def assert_as_documented(point: Point | None) -> None:
    assert point is not None
    assert set(point.fields) == set(documented_fields(point.measurement))
    assert set(point.tags) == documented_tags(point.measurement)
    kept = storable(point)
    assert kept is not None
    assert set(kept.fields) == set(point.fields), "a store would leave a field out"
