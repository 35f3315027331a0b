"""What a server tells the node's agent, and that an agent that does not answer holds nothing up."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from job_wrappers.agent_client import AgentClient
from job_wrappers.serving.engine.views import Steered
from job_wrappers.serving.launch.telemetry import ServingTelemetry, status_points
from tests.job_wrappers.engine_status import engine_status


class Listening(AgentClient):
    def __init__(self) -> None:
        super().__init__("/nowhere")
        self.points: list[Mapping[str, Any]] = []

    def send_points(self, job_id: int, points: Sequence[Mapping[str, object]]) -> None:
        self.points += points

    def events(self) -> list[tuple[str, str]]:
        found = [point["fields"] for point in self.points if point["measurement"] == "serving_event"]
        return [(fields["kind"], fields["text"]) for fields in found]


def test_what_is_unknown_is_left_out() -> None:
    status = engine_status(joules_per_token=None, watts=None, energy_joules_total=None, sm_clock_mhz=None)
    point = status_points(status, wall_s=5.0)[0]
    assert point["fields"]["running"] == 2
    assert not {"joules_per_token", "draw_watts", "energy_joules", "sm_clock_mhz"} & set(point["fields"])


def test_each_change_by_steering_is_told_once() -> None:
    client, telemetry = Listening(), None
    halved = engine_status(failure=None, last_steered=Steered(what="max_num_seqs 4", effect_s=0.25))
    statuses = iter([engine_status(failure=None, last_steered=None), halved, halved, halved, halved])
    telemetry = ServingTelemetry(client, 7, lambda: next(statuses))
    for _ in range(3):
        telemetry._tell()
    assert client.events() == [("steered", "max_num_seqs 4, in force after 0.250 s")]


def test_the_first_word_says_where_the_server_is_and_the_last_what_it_did() -> None:
    client = Listening()
    telemetry = ServingTelemetry(client, 7, lambda: engine_status(failure=None, last_steered=None), every_s=60.0)
    telemetry.start("serving chat at http://n1:8000")
    telemetry.close()
    assert client.events() == [("ready", "serving chat at http://n1:8000"), ("ended", "400 tokens generated")]
    assert [point["measurement"] for point in client.points].count("serving_status") == 1


def test_a_missing_agent_costs_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    telemetry = ServingTelemetry(AgentClient("/nowhere/agent.sock"), 7, engine_status, every_s=0.01)
    with caplog.at_level(logging.WARNING):
        telemetry.start("serving")
        telemetry.close()
    (warning,) = caplog.records
    assert warning.getMessage().startswith("the server runs without full telemetry: /nowhere/agent.sock: ")
