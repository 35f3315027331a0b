"""What a person must mend is one clear line and an exit code, never a traceback; what mends itself is said once."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from slurm_power.testing.processes import wait_for

if TYPE_CHECKING:
    from tests.scenarios.conftest import ScenarioSite

CONFIG_ERROR, NOT_PERMITTED, UNAVAILABLE = 3, 4, 6
BIN = Path(sys.executable).parent
NOBODY = 65_534


def refused(site: ScenarioSite, *argv: str | Path, code: int) -> str:
    """The one line that the program said before it ended with `code`."""
    done = subprocess.run(
        [str(word) for word in argv], env=site.cluster.environment(), capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (code, ""), done
    lines = [line for line in done.stderr.splitlines() if " INFO " not in line]
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.mark.parametrize(
    "command",
    [
        ("slurm-powerd", "--config"),
        ("slurm-power-agent", "--node", "n1", "--config"),
        ("slurm-power", "config", "check"),
    ],
    ids=["controller", "agent", "check"],
)
@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"agent": {"safe_cap_watts": -1.0}}, "[agent] safe_cap_watts = -1.0: must be positive"),
        ({"store": {"pathh": "x"}}, "[store] pathh = x: unknown key"),
    ],
    ids=["value", "key"],
)
def test_a_bad_config_names_key_value_and_rule(
    site: ScenarioSite, command: tuple[str, ...], overrides: dict[str, dict[str, object]], said: str
) -> None:
    config = site.directory / "bad.toml"
    config.write_text(site.config_text(**overrides))
    assert f"{config}: {said}" in refused(site, BIN / command[0], *command[1:], config, code=CONFIG_ERROR)


def test_a_taken_port_is_named(site: ScenarioSite) -> None:
    said = refused(site, BIN / "slurm-powerd", "--config", site.config_file, code=UNAVAILABLE)
    assert f"cannot listen on 127.0.0.1:{site.listen_port}: Address already in use" in said


def test_an_agent_without_the_right_to_set_caps_says_what_it_needs(site: ScenarioSite) -> None:
    as_nobody = (
        "import os, sys; from slurm_power.cli.agent import main; "
        f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY}); main()"
    )
    options = ("--config", site.config_file, "--node", "n1")
    assert "needs root" in refused(site, sys.executable, "-c", as_nobody, *options, code=NOT_PERMITTED)


def test_a_bad_option_of_a_job_is_one_line(site: ScenarioSite) -> None:
    done = site.cluster.run("sbatch", "--gpu-power-cap=9999", "--wrap=true", check=False)
    assert done.returncode != 0
    errors = done.stderr.splitlines()
    assert errors[0].startswith("sbatch: error: --gpu-power-cap=9999: must be")


def test_without_meter_and_battery_the_controller_starts_and_says_so_once(site: ScenarioSite) -> None:
    site.services.stop()
    site.services.start_agents(site.config_file)
    before = len(site.log("powerd"))
    site.services.start_controller(site.config_file)
    status = site.wait_status(lambda status: status["ticks"] >= 4)
    assert {"meter", "pcs"} <= set(status["failures"])
    assert status["grid"] is None
    said = site.log("powerd")[before:]
    assert said.count(" meter: ") == 1
    assert said.count(" pcs: ") == 1
    assert "Traceback" not in said

    site.services.start_site(site.site_file)
    site.wait_status(lambda status: status["target_watts"] is not None and not status["failures"])
    assert "meter: answers again" in site.log("powerd")[before:]


def test_without_munge_the_controller_starts_and_says_so_once(site: ScenarioSite) -> None:
    missing = site.directory / "no-munge.socket"
    site.cluster.services.stop("powerd")
    before = len(site.log("powerd"))
    site.services.start_controller(site.write_config(controller={"munge_socket": missing}))
    status = site.wait_status(lambda status: status["ticks"] >= 3 and "munge" in status["failures"])
    assert str(missing) in status["failures"]["munge"]
    said = site.log("powerd")[before:]
    assert said.count(" munge: ") == 1
    assert "Traceback" not in said


def test_an_agent_without_munge_keeps_the_safe_cap_and_says_so_once(site: ScenarioSite) -> None:
    missing = site.directory / "no-munge.socket"
    site.cluster.services.stop("agent-n4")
    before = len(site.log("agent-n4"))
    site.write_config(agent={"munge_socket": missing})
    site.services.start_agent("n4", site.config_file)
    assert wait_for(lambda: site.caps("n4") == [400.0] * 4, timeout_s=20)
    assert wait_for(lambda: str(missing) in site.log("agent-n4")[before:], timeout_s=20)
    site.wait_status(lambda status: "node n4" in status["failures"])
    said = site.log("agent-n4")[before:]
    assert said.count(" controller: ") == 1
    assert "Traceback" not in said


def test_a_port_is_free_again_at_once(site: ScenarioSite) -> None:
    """A restart must not wait for the connections of the process before it."""
    with socket.create_connection(("127.0.0.1", site.listen_port)):
        site.kill("powerd")
        site.services.start_controller(site.config_file)
        site.wait_status(lambda status: status["ticks"] > 0)
