"""The agent's /metrics: what its loop has published lately, to readers who may be slow or rude."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import httpx
import pytest

from slurm_power.daemons import metrics_listener as module
from slurm_power.daemons.metrics_listener import MetricsListener
from slurm_power.errors import Unavailable
from slurm_power.testing.fake_clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def listener(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[MetricsListener]:
    monkeypatch.setattr(module, "CLIENT_TIMEOUT_S", 0.3)
    found = MetricsListener("127.0.0.1", 0, max_age_s=10.0, now_s=clock.now_s)
    found.start()
    yield found
    found.close()


def get(listener: MetricsListener, path: str = "/metrics") -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{listener.port}{path}", timeout=20.0, trust_env=False)


def test_the_last_text_is_handed_out(listener: MetricsListener) -> None:
    listener.publish("old\n# EOF\n")
    listener.publish("new\n# EOF\n")
    answer = get(listener)
    assert (answer.status_code, answer.text) == (200, "new\n# EOF\n")
    assert answer.headers["content-type"].startswith("application/openmetrics-text")


def test_before_the_first_sample_and_once_the_agent_hangs_there_is_none(
    listener: MetricsListener, clock: FakeClock
) -> None:
    assert get(listener).status_code == 503
    listener.publish("x\n# EOF\n")
    clock.advance(11)
    assert get(listener).status_code == 503


def test_nothing_else_is_served(listener: MetricsListener) -> None:
    listener.publish("x\n# EOF\n")
    assert get(listener, "/").status_code == 404
    assert httpx.post(f"http://127.0.0.1:{listener.port}/metrics", trust_env=False).status_code == 501


def test_a_reader_who_says_nothing_is_let_go(listener: MetricsListener) -> None:
    listener.publish("x\n# EOF\n")
    with socket.create_connection(("127.0.0.1", listener.port)):
        assert get(listener).status_code == 200


def test_a_taken_port_is_one_clear_line(listener: MetricsListener, clock: FakeClock) -> None:
    with pytest.raises(Unavailable, match=f"127.0.0.1:{listener.port}"):
        MetricsListener("127.0.0.1", listener.port, max_age_s=10.0, now_s=clock.now_s)
