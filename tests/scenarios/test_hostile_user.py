"""A user of the cluster who talks to the controller's port, and the admin's commands beside it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from slurm_power.gpu.wire import AgentReport
from slurm_power.gpu.wire_json import report_to_json
from slurm_power.testing.processes import wait_for

if TYPE_CHECKING:
    from tests.scenarios.conftest import ScenarioSite

BIN = Path(sys.executable).parent
FLOOD_S = 2.0
LIE = AgentReport(node_name="n1", base_watts=1.0, age_s=0.0, gpus=(), lease_remaining_s=None)
"""That n1 draws nothing."""


def sealed_by_nobody(site: ScenarioSite, payload: bytes) -> bytes:
    """A real credential of this cluster, made with munge's own command by a user without rights."""
    socket_option = f"--socket={site.cluster.layout.munge_socket}"
    return site.cluster.run("munge", socket_option, user="nobody", script=payload.decode()).stdout.strip().encode()


def post(site: ScenarioSite, body: bytes) -> httpx.Response:
    return httpx.post(f"{site.url}/agent/report", content=body, timeout=10.0, trust_env=False)


def test_a_users_report_is_refused_whether_sealed_or_not(site: ScenarioSite) -> None:
    assert post(site, report_to_json(LIE)).status_code == 403
    refusal = post(site, sealed_by_nobody(site, report_to_json(LIE)))
    assert refusal.status_code == 403
    assert "uid 65534" in refusal.text
    assert site.api("status")["nodes"][0]["base_watts"] != LIE.base_watts


def test_a_flood_of_garbage_is_refused_while_ticks_and_leases_go_on(site: ScenarioSite) -> None:
    job_id = site.cluster.sbatch(
        "--gpus-per-node=4", "--nodelist=n1", "--time=10", "--power-max-slowdown=0.6",
        script="exec slurm-power-emulated-load --work-s 400",
    )  # fmt: skip
    site.cluster.wait_for_job(job_id, "RUNNING")
    site.make_peak()
    assert wait_for(lambda: max(site.caps("n1")) < 400, timeout_s=30, poll_s=0.2)
    ticks = site.api("status")["ticks"]
    sealed = sealed_by_nobody(site, report_to_json(replace(LIE, node_name="n2")))
    bodies = (b"", b"\0" * 1000, b"{}", os.urandom(100_000), b"A" * 2_000_000, sealed[:-9] + sealed[-8:], sealed)

    with ThreadPoolExecutor(4) as senders:
        answers = [code for codes in senders.map(lambda _: flood(site, bodies), range(4)) for code in codes]

    assert len(answers) > 50
    assert {code // 100 for code in answers} == {4}, sorted(set(answers))
    status = site.wait_status(lambda status: status["ticks"] > ticks + 2)
    assert status["failures"] == {}
    assert {gpu["cap_source"] for node in status["nodes"] for gpu in node["gpus"]} == {"found", "lease"}
    assert max(site.caps("n1")) < 400
    assert "Traceback" not in site.log("powerd")


def flood(site: ScenarioSite, bodies: tuple[bytes, ...]) -> list[int]:
    codes, until_s = [], time.monotonic() + FLOOD_S
    with httpx.Client(timeout=10.0, trust_env=False) as client:
        while time.monotonic() < until_s:
            for body in bodies:
                try:
                    codes.append(client.post(f"{site.url}/agent/report", content=body).status_code)
                except httpx.TransportError:
                    continue  # cut off in the middle of a body that is too long
    return codes


def test_a_report_that_is_never_finished_is_dropped(site: ScenarioSite) -> None:
    with socket.create_connection(("127.0.0.1", site.listen_port), timeout=10) as client:
        client.sendall(b"POST /agent/report HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf")
        assert client.recv(100).startswith(b"HTTP/1.1 408")
    with socket.create_connection(("127.0.0.1", site.listen_port)) as client:
        client.sendall(b"POST /agent/report HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf")
    ticks = site.api("status")["ticks"]
    site.wait_status(lambda status: status["ticks"] > ticks)
    assert "Traceback" not in site.log("powerd")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("status", ["Grid import", "Target", "17.00 kW"]),
        ("plan", ["Target 17.00 kW", "envelope"]),
        ("jobs", ["flexible", "watts:"]),
        ("ess", ["Stored", "age", "Told to give"]),
    ],
)
def test_the_admins_commands_show_the_living_controller(site: ScenarioSite, command: str, words: list[str]) -> None:
    options = ("--gpus=1", "--begin=now+1hour", "--power-class=flexible", "--time=5")
    job_id = site.cluster.sbatch(*options, script="true")
    site.wait_status(lambda _: [job["job_id"] for job in site.api("jobs")] == [job_id])
    environment = {**site.cluster.environment(), "COLUMNS": "200"}
    argv = [BIN / "slurm-power", command, "--config", site.config_file]
    shown = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True).stdout
    assert [word for word in words if word not in shown] == [], shown
    told = subprocess.run([*argv, "--json"], env=environment, capture_output=True, text=True, check=True).stdout
    assert json.loads(told)
    if command == "status":
        ages = [
            line.split("│")[-2].strip() for line in shown.splitlines() if "Grid import" in line or "IT draw" in line
        ]
        assert len(ages) == 2
        assert all(0 <= float(age.removesuffix(" s")) < 5 for age in ages), shown
