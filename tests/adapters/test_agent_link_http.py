"""The agent's line over HTTP: trust comes from what is sealed."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from slurm_power.adapters.agent_link_http import HttpAgentLink
from slurm_power.adapters.sealed_http import SealedClient
from slurm_power.errors import NotPermitted, SlurmPowerError, Unavailable
from slurm_power.gpu.wire import AgentReport, NodeLease
from slurm_power.gpu.wire_json import lease_to_json, report_from_json
from slurm_power.testing.fake_clock import FakeClock
from slurm_power.testing.fake_credentials import FakeCredentials, FakeKey

REPORT = AgentReport("n1", 500.0, 0.5, (), None)
LEASE = NodeLease("n1", 1, 30.0, {"GPU-a": 300.0})
CONTROLLER_UID = 990


class Controller:
    """Answers as the real one does, or as a test wants."""

    def __init__(self) -> None:
        self.clock, self.key = FakeClock(), FakeKey()
        self.credentials = FakeCredentials(self.clock, self.key, uid=CONTROLLER_UID)
        self.answer: Callable[[], httpx.Response] = lambda: self.sealed(lease_to_json(LEASE))
        self.reports: list[AgentReport] = []

    def sealed(self, payload: bytes) -> httpx.Response:
        return httpx.Response(200, content=self.credentials.seal(payload))

    def link(self) -> HttpAgentLink:
        client = SealedClient(
            "http://controller:1/",
            credentials=FakeCredentials(self.clock, self.key),
            allowed_uids=[CONTROLLER_UID],
            transport=httpx.MockTransport(self._handle),
        )
        return HttpAgentLink(client)

    def _handle(self, request: httpx.Request) -> httpx.Response:
        assert request.url == "http://controller:1/agent/report"
        self.reports.append(report_from_json(self.credentials.open(request.content).payload))
        return self.answer()


@pytest.fixture
def controller() -> Controller:
    return Controller()


def test_a_report_goes_out_and_a_lease_comes_back(controller: Controller) -> None:
    assert controller.link().exchange(REPORT) == LEASE
    assert controller.reports == [REPORT]


def test_no_lease_yet_is_none(controller: Controller) -> None:
    controller.answer = lambda: controller.sealed(b"{}")
    assert controller.link().exchange(REPORT) is None


def test_a_lease_from_anybody_else_is_refused(controller: Controller) -> None:
    controller.credentials = FakeCredentials(controller.clock, controller.key, uid=1000)
    with pytest.raises(NotPermitted, match="uid 1000"):
        controller.link().exchange(REPORT)


def test_a_replayed_lease_is_refused(controller: Controller) -> None:
    old = controller.credentials.seal(lease_to_json(LEASE))
    controller.answer = lambda: httpx.Response(200, content=old)
    link = controller.link()
    link.exchange(REPORT)
    with pytest.raises(NotPermitted, match="Replayed"):
        link.exchange(REPORT)


def away() -> httpx.Response:
    raise httpx.ConnectError("connection refused")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        pytest.param(away, Unavailable, id="away"),
        pytest.param(lambda: httpx.Response(500), Unavailable, id="broken"),
        pytest.param(lambda: httpx.Response(302, headers={"location": "http://evil"}), Unavailable, id="redirect"),
        pytest.param(lambda: httpx.Response(403), NotPermitted, id="does-not-trust-us"),
        pytest.param(lambda: httpx.Response(200, content=b"unsealed"), NotPermitted, id="not-sealed"),
        pytest.param(lambda: httpx.Response(200, content=b"x" * 2_000_000), Unavailable, id="endless"),
    ],
)
def test_what_goes_wrong(
    answer: Callable[[], httpx.Response], error: type[SlurmPowerError], controller: Controller
) -> None:
    controller.answer = answer
    with pytest.raises(error):
        controller.link().exchange(REPORT)


def test_a_lease_for_another_node_is_refused(controller: Controller) -> None:
    controller.answer = lambda: controller.sealed(lease_to_json(NodeLease("n2", 1, 30.0)))
    with pytest.raises(NotPermitted, match="another node"):
        controller.link().exchange(REPORT)


def test_an_unreadable_lease_counts_as_none_heard(controller: Controller) -> None:
    controller.answer = lambda: controller.sealed(b'{"node_name": "n1"}')
    with pytest.raises(Unavailable, match="report or lease unreadable"):
        controller.link().exchange(REPORT)
