"""The agent's exchange with the controller."""

from __future__ import annotations

import threading

import pytest

from slurm_power.daemons.node_agent_link import LinkWorker
from slurm_power.errors import Unavailable
from slurm_power.gpu.wire import AgentReport, NodeLease
from slurm_power.testing.fake_agent_link import FakeAgentLink
from slurm_power.testing.fake_clock import FakeClock

REPORT = AgentReport("n1", 500.0, 0.5, (), None)
LEASE = NodeLease("n1", 1, 30.0)


def worker_on(link: FakeAgentLink, clock: FakeClock, woken: list[str]) -> LinkWorker:
    return LinkWorker(link, clock=clock, on_lease=lambda: woken.append("woken"))


def test_a_lease_counts_from_its_receipt_and_wakes_the_agent() -> None:
    clock, woken = FakeClock(now_s=100.0), list[str]()
    worker = worker_on(FakeAgentLink(LEASE), clock, woken)
    worker.exchange_once(REPORT, offered_at_s=100.0)
    assert [(heard.lease, heard.received_at_s) for heard in worker.leases()] == [(LEASE, 100.0)]
    assert worker.leases() == []
    assert woken == ["woken"]


def test_a_report_that_waited_arrives_with_its_true_age() -> None:
    clock, link = FakeClock(now_s=103.0), FakeAgentLink()
    worker_on(link, clock, []).exchange_once(REPORT, offered_at_s=100.0)
    assert link.reports[0].age_s == 3.5


def test_a_silent_controller_is_said_once_and_then_that_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    link, woken = FakeAgentLink(LEASE), list[str]()
    link.failure = Unavailable("connection refused")
    worker = worker_on(link, FakeClock(), woken)
    for _ in range(3):
        worker.exchange_once(REPORT, offered_at_s=1000.0)
    assert woken == []
    link.failure = None
    worker.exchange_once(REPORT, offered_at_s=1000.0)
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["controller: connection refused", "controller: answers again"]


def test_the_thread_sends_what_is_offered_and_ends_when_told() -> None:
    link, answered = FakeAgentLink(LEASE), threading.Event()
    worker = LinkWorker(link, clock=FakeClock(), on_lease=answered.set)
    worker.start()
    worker.offer(REPORT)
    assert answered.wait(10.0)
    worker.stop(timeout_s=10.0)
    assert link.reports == [REPORT]
    worker.offer(REPORT)
    assert link.reports == [REPORT]
