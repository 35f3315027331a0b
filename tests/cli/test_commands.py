"""The admin's commands against a controller that really listens."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import uvicorn
from click.testing import CliRunner, Result

from slurm_power.cli.main import COMMANDS, slurm_power
from slurm_power.daemons import controller_view as views
from slurm_power.daemons.controller_view import ControllerView, Event, FastView
from slurm_power.errors import ConfigError, Unavailable
from slurm_power.ess.plan import DispatchPlan, PlanSlot
from slurm_power.ess.setpoint import EssSetpoint
from slurm_power.monitoring.readings import EssReading, GpuReading, GridReading, NodeReading, Snapshot
from slurm_power.relocation.jobs import Job, JobState
from slurm_power.web.app import create_app

NOW_S = 1000.0


def job(job_id: int, reason: str) -> Job:
    return Job(
        job_id=job_id,
        user_name="ann",
        uid=1,
        name="train\x1b[31m",
        partition="main",
        state=JobState.PENDING,
        state_reason=reason,
        gpus=2,
        node_names=(),
        submit_wall_s=0.0,
        begin_wall_s=None,
        start_wall_s=None,
        time_limit_s=60.0,
        licenses={"watts": 1400},
        batch=True,
        requeueable=True,
        admin_comment="slurm-power:class=flexible",
    )


class Controller:
    """Known content behind the real views and the real web app."""

    slot = PlanSlot(1.7e9, 900.0, 8000.0, 0.0, 500.0, 1e6, 5000.0, 3000.0, 400.0, 2600.0, 0.18)
    plan_made = DispatchPlan(1.7e9, 8000.0, (slot,), 12.0, ("the peak rises",))
    view = ControllerView(
        mode="manage",
        ticks=3,
        ticked_at_s=NOW_S - 2,
        snapshot=Snapshot(NOW_S, 1.7e9, failures={"node n2": "its agent does not report"}),
        plan=plan_made,
        jobs=(job(7, "Licenses"), job(8, "Priority")),
        events=(
            Event(1.7e9, "create", "reservation slurm_power_1", "14:00-15:00: the envelope is 2.6 kW"),
            Event(1.7e9, "defer", "job 8", "later is better"),
        ),
    )
    gpu = GpuReading("GPU-a", 300.0, 1.0, 1200, 60.0, 0.9, 300.0, "user", 5)
    nodes: ClassVar = {"n1": NodeReading("n1", 500.0, (gpu,), NOW_S - 1.5)}
    fast = FastView(
        grid=GridReading(7000.0, 0.0, NOW_S - 0.5),
        ess=EssReading(0.5, 0.98, 3.6e6, 1000.0, 1000.0, 0.0, 250.0, True, ("FAN",), NOW_S - 0.5),
        setpoint=EssSetpoint(discharge_watts=250.0),
        clamped=("discharge 900 W -> 250 W: an empty battery",),
    )

    def status(self) -> Any:
        return views.status_json(
            views.Picture(
                view=self.view,
                fast=self.fast,
                nodes=self.nodes,
                reporting=frozenset(self.nodes),
                it_watts=800.0,
                now_s=NOW_S,
                wall_s=1.7e9,
            )
        )

    def plan(self) -> Any:
        return views.plan_json(self.view, self.fast)

    def jobs(self) -> Any:
        return views.jobs_json(self.view)

    def ess(self) -> Any:
        return views.ess_json(self.view, self.fast, now_s=NOW_S)

    def events(self) -> Any:
        return views.events_json(self.view)

    def healthy(self) -> bool:
        return True

    def exchange(self, sealed: bytes) -> bytes:
        return sealed


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(create_app(Controller()), port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(slurm_power, list(arguments), env={"COLUMNS": "200"})


def test_status_shows_each_number_with_its_age(url: str) -> None:
    text = run("status", "--url", url, "--gpus").output
    assert "7.00 kW" in text
    assert "0.5 s" in text
    assert "300 W" in text
    assert "user" in text
    assert "an empty battery" in text
    assert "node n2: its agent does not report" in text


def test_plan_shows_the_envelope_and_what_falls_short(url: str) -> None:
    text = run("plan", "--url", url).output
    assert "2.60 kW" in text
    assert "the peak rises" in text


def test_jobs_says_why_each_job_waits_and_never_prints_a_users_escape_codes(url: str) -> None:
    text = run("jobs", "--url", url).output
    assert "the envelope is 2.6 kW" in text.replace("\n", " ") or "waits for watts" in text
    assert "later is better" in text
    assert "\x1b" not in text


def test_ess_shows_what_the_battery_was_told(url: str) -> None:
    text = run("ess", "--url", url).output
    assert "Told to give 0.25 kW" in text
    assert "Alarm: FAN" in text


@pytest.mark.parametrize("command", ["status", "plan", "jobs", "ess"])
def test_json_is_what_the_controller_says(url: str, command: str) -> None:
    assert json.loads(run(command, "--url", url, "--json").output) == json.loads(
        json.dumps(getattr(Controller(), command)())
    )


def test_no_controller_is_one_clear_line_and_exit_code_6() -> None:
    result = run("status", "--url", "http://127.0.0.1:9")
    assert isinstance(result.exception, Unavailable)
    assert result.exception.exit_code == 6
    assert "no controller answers at http://127.0.0.1:9" in str(result.exception)


def test_an_absent_config_is_named(tmp_path: Path) -> None:
    result = run("status", "--config", str(tmp_path / "absent.toml"))
    assert isinstance(result.exception, ConfigError)
    assert "absent.toml" in str(result.exception)


def test_config_explain_says_where_each_value_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "slurm-power.toml"
    file.write_text('[controller]\nstate_path = "/x"\nfast_period_s = 2\n')
    rows = json.loads(run("config", "explain", str(file), "--json").output)
    found = {row["key"]: (row["value"], row["from"]) for row in rows}
    assert found["fast_period_s"] == ("2.0", "file")
    assert found["tick_period_s"] == ("60.0", "default")


def test_config_check_reads_all_tables(tmp_path: Path) -> None:
    file = tmp_path / "slurm-power.toml"
    file.write_text("[site]\ngrid_limit_watts = 1.0\n")
    result = run("config", "check", str(file))
    assert isinstance(result.exception, ConfigError)
    assert "[site] it_max_watts: missing" in str(result.exception)


def test_every_command_has_a_help_text() -> None:
    for name in COMMANDS:
        result = run(name, "--help")
        assert result.exit_code == 0, name
        assert len(result.output.splitlines()[2].strip()) > 10, name


def test_an_unknown_command_is_a_usage_error() -> None:
    assert run("explode").exit_code == 2
