"""The dashboard, the metrics and an admin's hold on the real controller of a real cluster."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from click.testing import CliRunner

from slurm_power.cli.main import slurm_power
from slurm_power.testing.processes import wait_for

if TYPE_CHECKING:
    from tests.scenarios.conftest import ScenarioSite

TOKEN = "5f8a1c0e9b7d42638f1e0a9c"
LOAD = "exec slurm-power-emulated-load --work-s"


def latest_parts(site: ScenarioSite, wanted: set[str]) -> dict[str, Any]:
    """What the stream tells first of each part."""
    found: dict[str, Any] = {}
    with httpx.stream("GET", f"{site.url}/api/stream", timeout=20.0, trust_env=False) as answer:
        name = ""
        for line in answer.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                found[name] = json.loads(line.removeprefix("data: "))
            if wanted <= found.keys():
                return found
    raise AssertionError(f"the stream ended with {sorted(found)}")


def samples(text: str) -> dict[str, float]:
    parser = pytest.importorskip("prometheus_client.openmetrics.parser")
    families = parser.text_string_to_metric_families(text)
    return {sample.name: sample.value for family in families for sample in family.samples}


def get(url: str) -> str:
    return httpx.get(url, timeout=5.0, trust_env=False).raise_for_status().text


@pytest.fixture
def told_site(site: ScenarioSite) -> ScenarioSite:
    """With an admin's token, and with metrics at n1's agent."""
    tokens = site.directory / "admin.tokens"
    tokens.write_text(f"ops {TOKEN}\n")
    tokens.chmod(0o600)
    agent_file = site.directory / "agent-n1.toml"
    agent_file.write_text(site.config_text(agent={"metrics_port": site.metrics_port}))
    for name in ("powerd", "agent-n1"):
        site.cluster.services.stop(name, grace_s=15.0)
    site.services.start_agent("n1", agent_file)
    site.write_config(controller={"admin_token_file": str(tokens)})
    site.start()
    return site


def admin(site: ScenarioSite, *words: str) -> None:
    done = CliRunner().invoke(slurm_power, [*words, "--config", str(site.config_file), "--why", "a test"])
    assert done.exit_code == 0, done.output or done.exception


def test_what_is_told_of_a_real_site_and_how_an_admin_holds_it(told_site: ScenarioSite) -> None:
    """One test for both, as a site takes long to start."""
    page_stream_and_metrics_tell_the_site(told_site)
    a_held_controller_leaves_jobs_alone_and_defends_the_target_with_the_battery(told_site)


def page_stream_and_metrics_tell_the_site(site: ScenarioSite) -> None:
    assert "<title>slurm-power</title>" in get(site.url)
    parts = latest_parts(site, {"now", "gpus", "gpu_names", "outlook", "trail", "jobs", "feed", "bill"})
    nodes = site.cluster.node_names()
    assert parts["gpus"]["nodes"] == sorted(nodes)
    assert set(parts["gpu_names"]) == set(nodes)
    assert parts["now"]["grid"]["import_watts"] > 0
    assert parts["outlook"]["slots"]["start_wall_s"]
    assert parts["outlook"]["forecast"] is not None
    assert parts["bill"]["lines"]
    assert parts["trail"]["wall_s"], "the last hours come from the store"

    controller = samples(get(f"{site.url}/metrics"))
    assert controller["slurm_power_controller_healthy"] == 1
    assert controller["slurm_power_nodes_reporting"] == len(nodes)
    assert controller["slurm_power_grid_import_watts"] > 0
    agent_url = f"http://127.0.0.1:{site.metrics_port}/metrics"
    assert wait_for(lambda: samples(get(agent_url))["slurm_power_agent_lease_held"] == 1, timeout_s=30)
    agent = samples(get(agent_url))
    assert agent["slurm_power_gpu_draw_watts"] > 0
    assert agent["slurm_power_gpu_energy_joules_total"] > 0


def a_held_controller_leaves_jobs_alone_and_defends_the_target_with_the_battery(site: ScenarioSite) -> None:
    job = site.cluster.sbatch(
        "--gpus-per-node=4", "--nodelist=n1", "--time=10", "--power-class=flexible", "--power-max-slowdown=0.6",
        script=f"{LOAD} 400",
    )  # fmt: skip
    site.cluster.wait_for_job(job, "RUNNING")
    admin(site, "hold", "--for", "10m")
    site.kill("powerd")
    site.start()
    held = site.api("status")["overrides"]["hold"]
    assert (held["who"], held["why"]) == ("ops", "a test"), "a restart does not end it"

    site.make_peak()
    assert wait_for(lambda: site.control.do("truth")["battery_discharge_watts"] > 1000, timeout_s=30, poll_s=0.2)
    ticks = site.api("status")["ticks"]
    site.wait_status(lambda status: status["ticks"] > ticks + 3)
    assert site.caps("n1") == [700.0] * 4
    assert site.api("events") == [], "nothing was decided since the restart"

    admin(site, "hold", "--off")
    assert wait_for(lambda: max(site.caps("n1")) < 700.0, timeout_s=30, poll_s=0.2), site.api("plan")
    decided = [(event["verb"], event["subject"]) for event in site.api("events")]
    assert ("resume", "controller") in decided
    assert ("cap", f"job {job}") in decided
