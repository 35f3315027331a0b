"""The pool manager's line over HTTP: what the controller refuses, and whose budgets are ours."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from slurm_power.adapters.pool_link_http import HttpPoolLink
from slurm_power.adapters.sealed_http import SealedClient
from slurm_power.errors import ConfigError, NotPermitted, SlurmPowerError, Unavailable
from slurm_power.llm.pool_wire import Budget, Override, PoolReport, budgets_to_json
from slurm_power.llm.power_budget import PoolDraw
from slurm_power.testing.fake_clock import FakeClock
from slurm_power.testing.fake_credentials import FakeCredentials, FakeKey

REPORT = PoolReport("chat", (PoolDraw("chat/SS", 400.0, 100.0),), {})
CONTROLLER_UID = 990

Answer = Callable[[], httpx.Response]


class Controller:
    def __init__(self) -> None:
        self.clock, self.key = FakeClock(), FakeKey()
        self.credentials = FakeCredentials(self.clock, self.key, uid=CONTROLLER_UID)

    def budgets(self, **watts: float) -> httpx.Response:
        named = {name.replace("_", "/"): Budget(value, 30.0) for name, value in watts.items()}
        return httpx.Response(200, content=self.credentials.seal(budgets_to_json(named)))

    def link(self, answer: Answer) -> HttpPoolLink:
        client = SealedClient(
            "http://controller:1",
            credentials=FakeCredentials(self.clock, self.key),
            allowed_uids=[CONTROLLER_UID],
            transport=httpx.MockTransport(lambda _: answer()),
        )
        return HttpPoolLink(client)


@pytest.fixture
def controller() -> Controller:
    return Controller()


def test_budgets_of_our_pools_come_back_and_those_of_others_are_left_out(controller: Controller) -> None:
    link = controller.link(lambda: controller.budgets(chat_SS=300.0, other_SS=200.0))
    assert link.exchange(REPORT) == {"chat/SS": Budget(300.0, 30.0)}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        pytest.param(httpx.Response(400, text="no such pool"), Unavailable, id="nonsense"),
        pytest.param(httpx.Response(403, text="uid 7 may not"), NotPermitted, id="does-not-trust-us"),
        pytest.param(httpx.Response(503), Unavailable, id="in-trouble"),
        pytest.param(httpx.Response(200, content=b"x" * 2_000_000), Unavailable, id="endless"),
        pytest.param(httpx.Response(200, content=b"unsealed"), NotPermitted, id="not-sealed"),
    ],
)
def test_what_goes_wrong_with_a_report(
    answer: httpx.Response, error: type[SlurmPowerError], controller: Controller
) -> None:
    with pytest.raises(error):
        controller.link(lambda: answer).exchange(REPORT)


def test_an_admin_hears_the_controllers_own_words(controller: Controller) -> None:
    link = controller.link(lambda: httpx.Response(400, text="no pool chta reports; there are chat/SS"))
    with pytest.raises(ConfigError, match=r"^no pool chta reports"):
        link.override(Override("chta", 100.0, 60.0))
