"""The HTTP face: JSON out, sealed reports in, errors as their status."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from slurm_power.errors import ConfigError, NotPermitted, Unavailable
from slurm_power.web.app import MAX_REPORT_BYTES, create_app


class Face:
    def __init__(self) -> None:
        self.refusal: Exception | None = None
        self.ticked = True

    def status(self) -> Any:
        return {"target_watts": 8000.0}

    def plan(self) -> Any:
        return {"plan": None}

    def jobs(self) -> Any:
        return [{"job_id": 1}]

    def ess(self) -> Any:
        return {"ess": None}

    def events(self) -> Any:
        return []

    def healthy(self) -> bool:
        return self.ticked

    def exchange(self, sealed: bytes) -> bytes:
        if self.refusal is not None:
            raise self.refusal
        return sealed[::-1]


@pytest.fixture
def face() -> Face:
    return Face()


@pytest.fixture
def http(face: Face) -> TestClient:
    return TestClient(create_app(face))


@pytest.mark.parametrize("name", ["status", "plan", "jobs", "ess", "events"])
def test_every_view_is_served_as_json(http: TestClient, face: Face, name: str) -> None:
    assert http.get(f"/api/{name}").json() == getattr(face, name)()


def test_a_report_goes_to_the_registry_and_its_answer_back(http: TestClient) -> None:
    assert http.post("/agent/report", content=b"abc").content == b"cba"


@pytest.mark.parametrize(
    ("refusal", "status"),
    [(NotPermitted("uid 7"), 403), (ConfigError("report.gpus"), 400), (Unavailable("munge"), 503)],
)
def test_a_refused_report_says_why(http: TestClient, face: Face, refusal: Exception, status: int) -> None:
    face.refusal = refusal
    answer = http.post("/agent/report", content=b"abc")
    assert answer.status_code == status
    assert str(refusal) in answer.text


def test_a_report_of_megabytes_is_refused_unread(http: TestClient) -> None:
    assert http.post("/agent/report", content=b"x" * (MAX_REPORT_BYTES + 1)).status_code == 413


def test_a_controller_without_a_tick_is_not_healthy(http: TestClient, face: Face) -> None:
    assert http.get("/health").status_code == 200
    face.ticked = False
    assert http.get("/health").status_code == 503


def test_the_agents_door_does_not_open_for_a_get(http: TestClient) -> None:
    assert http.get("/agent/report").status_code == 405
