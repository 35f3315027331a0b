"""SIGTERM of the controller: a clean end within seconds, whatever it waits for."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from slurm_power.testing.processes import wait_for

if TYPE_CHECKING:
    from tests.scenarios.conftest import ScenarioSite

SOON_S = 8.0
"""A few seconds, and some for a busy machine."""


@contextmanager
def controller_of_our_own(site: ScenarioSite) -> Iterator[subprocess.Popen[str]]:
    """In place of the supervised one, so that its exit code can be seen."""
    site.cluster.services.stop("powerd")
    argv = [Path(sys.executable).parent / "slurm-powerd", "--config", site.config_file]
    with (site.directory / "stopped.log").open("w") as log:
        process = subprocess.Popen(argv, env=site.cluster.environment(), stderr=log, stdout=log, text=True)
    try:
        site.wait_status(lambda status: status["ticks"] > 1)
        yield process
    finally:
        process.kill()
        process.wait()


def assert_ends_cleanly(site: ScenarioSite, process: subprocess.Popen[str]) -> None:
    asked_at_s = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0
    assert time.monotonic() - asked_at_s < SOON_S
    said = (site.directory / "stopped.log").read_text()
    assert "stopping" in said
    assert "Traceback" not in said


def test_between_two_ticks(site: ScenarioSite) -> None:
    with controller_of_our_own(site) as process:
        assert_ends_cleanly(site, process)


def test_in_the_middle_of_a_tick_that_waits_for_slurm_while_a_client_never_finishes_its_request(
    site: ScenarioSite,
) -> None:
    site.write_config(slurm={"timeout_s": 30.0})
    with controller_of_our_own(site) as process, socket.create_connection(("127.0.0.1", site.listen_port)) as client:
        client.sendall(b"POST /agent/report HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf")
        site.cluster.services.signal("slurmctld", signal.SIGSTOP)
        try:
            stuck_s = 3.0
            site.wait_status(lambda status: status["tick_age_s"] > stuck_s)
            assert_ends_cleanly(site, process)
        finally:
            site.cluster.services.signal("slurmctld", signal.SIGCONT)


@pytest.fixture(autouse=True)
def slurmctld_answers_again(site: ScenarioSite) -> Iterator[None]:
    yield
    assert wait_for(lambda: site.cluster.run("scontrol", "ping", check=False).returncode == 0, timeout_s=20)
