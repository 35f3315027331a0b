"""Six jobs at once on emulated GPUs, each with another fate; each report says the right thing in the right quadrant."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from slurm_power.cli.main import slurm_power
from slurm_power.errors import ConfigError
from slurm_power.testing.cluster import DevCluster
from slurm_power.testing.cluster.ports import free_ports
from slurm_power.testing.nvml_emulator.emulator import ENVIRONMENT, EmulatedNode, Fault
from slurm_power.testing.processes import wait_for

TIMEOUT_S = 60.0
SAFE_CAP_WATTS, USER_CAP_WATTS = 400.0, 300.0
LOADED_S = 8.0
WORK = "exec slurm-power-emulated-load --work-s 1000"
FATES: dict[int, Fault] = {0: "none", 1: "overheat", 2: "clock-jitter", 3: "starved"}
"""Of node n1's GPUs by minor number, which is also the order in which Slurm gives them out."""


class Site:
    def __init__(self, cluster: DevCluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.config = folder / "slurm-power.toml"
        store = f'[store]\nkind = "sqlite"\npath = "{folder}/telemetry.db"\nflush_period_s = 0.2\n'
        self.store = store
        self.config.write_text(f'{store}[slurm]\nslurm_conf = "{cluster.layout.slurm_conf}"\n')
        self.thresholds = folder / "thresholds.toml"
        self.thresholds.write_text(f"[data]\nmin_loaded_s = {LOADED_S / 2}\nmin_coverage_fraction = 0.7\n")

    def start_agent(self, node: str, *, controller: str = "") -> None:
        """With a controller that does not answer, every GPU gets the site's safe cap: a cap of ours."""
        folder = self.cluster.node_directory(node)
        config = folder / "agent.toml"
        config.write_text(
            f"{self.store}[agent]\nsafe_cap_watts = {SAFE_CAP_WATTS}\nsample_period_s = 0.2\nseal_period_s = 3\n"
            f'telemetry_flush_s = 0.2\nsocket = "{folder}/agent.sock"\njournal = "{folder}/journal"\n'
            f'controller_url = "{controller}"\n'
        )
        argv = [sys.executable, "-m", "slurm_power.cli.agent", "--config", str(config), "--node", node]
        environment = self.cluster.environment() | {ENVIRONMENT: str(self.cluster.gpu_state(node))}
        self.cluster.services.start(f"agent-{node}", argv, log=folder / "agent.log", env=environment)
        assert wait_for(self.cluster.agent_socket(node).exists, timeout_s=TIMEOUT_S)

    def stop(self) -> None:
        self.cluster.cancel_everything()
        for node in ("n1", "n2"):
            self.cluster.services.stop(f"agent-{node}")
            (self.cluster.node_directory(node) / "journal").unlink(missing_ok=True)
            with EmulatedNode.open(self.cluster.gpu_state(node)) as gpus:
                for uuid in gpus.gpu_uuids():
                    gpus.set_fault(uuid, "none")

    def submit(self, node: str, *options: str) -> int:
        return self.cluster.sbatch(f"--nodelist={node}", "--gpus-per-node=1", *options, script=WORK)

    def report(self, job_id: int, *options: str) -> dict[str, Any]:
        content = self.try_report(job_id, *options)
        assert content is not None, f"job {job_id}: no report"
        return content

    def try_report(self, job_id: int, *options: str) -> dict[str, Any] | None:
        """None before its first mark is in the store."""
        arguments = ["report", "sla", "--job", str(job_id), "--config", str(self.config), "--json", *options]
        result = CliRunner().invoke(slurm_power, [*arguments, "--thresholds", str(self.thresholds)])
        if isinstance(result.exception, ConfigError):
            return None
        assert result.exit_code == 0, f"{result.output} {result.exception}"
        content: dict[str, Any] = json.loads(result.stdout)
        return content

    def loaded_s(self, job_id: int) -> float:
        """As long as the job has worked, by what has reached the store; 0 before that."""
        report = self.try_report(job_id, "--until", "0h")
        return 0.0 if report is None else float(report["gpus"][0]["power"]["loaded_s"])

    def is_judged(self, job_id: int) -> bool:
        report = self.try_report(job_id)
        return report is not None and "not enough data" not in verdicts(report).values()


@pytest.fixture
def site(slurm: DevCluster, tmp_path: Path) -> Iterator[Site]:
    made = Site(slurm, tmp_path)
    with EmulatedNode.open(slurm.gpu_state("n1")) as gpus:
        for minor, fate in FATES.items():
            gpus.set_fault(gpus.uuid_of_minor(minor), fate)
        gpus.pass_time(60.0)  # hot air warms an idle GPU
    made.start_agent("n1")
    made.start_agent("n2", controller=f"http://127.0.0.1:{free_ports(1)[0]}")
    try:
        yield made
    finally:
        made.stop()


def verdicts(report: dict[str, Any]) -> dict[str, str]:
    return {name: quadrant["verdict"] for name, quadrant in report["quadrants"].items()}


def sentence(report: dict[str, Any], quadrant: str) -> str:
    return str(report["quadrants"][quadrant]["sentence"])


GOOD = dict.fromkeys(("clock", "throttling", "thermal", "power"), "pass")


def test_each_job_is_told_what_happened_to_it_and_whose_doing_it_was(site: Site) -> None:
    jobs = [site.submit("n1") for _ in FATES]
    ours, own = site.submit("n2"), site.submit("n2", f"--gpu-power-cap={USER_CAP_WATTS:.0f}")
    for job_id in (*jobs, ours, own):
        site.cluster.wait_for_job(job_id, "RUNNING")
    for job_id in (*jobs, ours, own):
        seen = wait_for(lambda job_id=job_id: site.loaded_s(job_id) >= LOADED_S, timeout_s=TIMEOUT_S, poll_s=1.0)
        assert seen, site.cluster.job_output(job_id)
    site.cluster.cancel_everything()
    for job_id in (*jobs, ours, own):
        assert wait_for(lambda job_id=job_id: site.is_judged(job_id), timeout_s=TIMEOUT_S, poll_s=1.0), job_id
    clean, hot, jittering, starved = map(site.report, jobs)

    assert verdicts(clean) == GOOD, (sentence(clean, "throttling"), clean["gpus"])
    assert clean["scope"]["user"] == "root"

    assert verdicts(hot)["throttling"] == verdicts(hot)["thermal"] == "fail"
    assert "by heat" in sentence(hot, "throttling")

    assert verdicts(jittering) == {**GOOD, "clock": "fail"}
    assert "no cap and no throttling explains it" in sentence(jittering, "clock")

    assert verdicts(starved) == {**GOOD, "power": "warn"}
    assert "waits for data" in sentence(starved, "power")

    for job_id, who, words, cap_watts in (
        (ours, "operator", "the power cap agreed with the operator", SAFE_CAP_WATTS),
        (own, "user", "the job's own power cap", USER_CAP_WATTS),
    ):
        capped = site.report(job_id)
        assert verdicts(capped) == GOOD
        assert words in sentence(capped, "throttling")
        assert "no fault" in sentence(capped, "throttling")
        (gpu,) = capped["gpus"]
        assert gpu["throttling"]["infrastructure_s"] == 0
        assert gpu["throttling"]["power_cap_of"][who]["seconds"] > LOADED_S / 2
        assert gpu["power"]["mean_limit_watts"] == pytest.approx(cap_watts, rel=0.1)
    assert {report["scope"]["job_id"] for report in (clean, hot, jittering, starved)} == set(jobs)
    assert {report["gpus"][0]["data"]["damaged_blocks"] for report in (clean, hot, jittering, starved)} == {0}
