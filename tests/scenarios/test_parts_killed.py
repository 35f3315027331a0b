"""kill -9 of one slurmd, one agent, and the site's bus: the tick goes on and says what it no longer knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.scenarios.conftest import ScenarioSite

LOAD = "exec slurm-power-emulated-load --work-s"


def assert_ticks_go_on(site: ScenarioSite) -> dict[str, Any]:
    ticks = site.api("status")["ticks"]
    return site.wait_status(lambda status: status["ticks"] >= ticks + 3)


def failures(site: ScenarioSite, *devices: str) -> dict[str, str]:
    """Once all of `devices` are named in the status, the plan names them too."""
    site.wait_status(lambda status: set(devices) <= set(status["failures"]), timeout_s=40)
    site_plan: dict[str, Any] = site.api("plan")
    assert set(devices) <= set(site_plan["failures"])
    assert site_plan["plan"] is not None
    return dict(site_plan["failures"])


def test_a_dead_slurmd_is_named_and_jobs_elsewhere_run_on(site: ScenarioSite) -> None:
    elsewhere = site.cluster.sbatch("--gpus=1", "--nodelist=n1", "--time=5", script=f"{LOAD} 10")
    site.cluster.wait_for_job(elsewhere, "RUNNING")
    site.cluster.kill_node("n2")

    assert "Slurm says" in failures(site, "node n2")["node n2"]
    assert_ticks_go_on(site)
    site.cluster.wait_for_job(elsewhere, "COMPLETED")

    site.cluster.start_node("n2")
    site.wait_status(lambda status: not status["failures"])


def test_a_dead_agent_makes_the_it_draw_unknown_until_it_is_back(site: ScenarioSite) -> None:
    site.kill("agent-n3")
    assert "does not report" in failures(site, "node n3")["node n3"]
    status = assert_ticks_go_on(site)
    assert status["it"]["draw_watts"] is None

    site.services.start_agent("n3", site.config_file)
    status = site.wait_status(lambda status: not status["failures"])
    assert status["it"]["draw_watts"] is not None


def test_a_dead_bus_leaves_meter_and_battery_unknown_until_it_is_back(site: ScenarioSite) -> None:
    job_id = site.cluster.sbatch("--gpus=1", "--time=5", script=f"{LOAD} 1")
    site.kill("site")
    named = failures(site, "meter", "pcs")
    assert all(str(site.bus_port) in named[device] for device in ("meter", "pcs"))
    assert_ticks_go_on(site)
    site.cluster.wait_for_job(job_id, "COMPLETED")
    status = site.wait_status(lambda status: "stand by" in " ".join(status["clamped"]), timeout_s=30)
    assert status["setpoint"] == {"charge_watts": 0.0, "discharge_watts": 0.0}

    site.services.start_site(site.site_file)
    status = site.wait_status(lambda status: not status["failures"] and status["grid"]["age_s"] < 2)
    assert status["ess"]["age_s"] < 2
