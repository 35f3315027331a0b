"""The controller's side of the agents' line: trust, ages, leases."""

from __future__ import annotations

import pytest

from slurm_power.daemons.agent_registry import AgentRegistry
from slurm_power.errors import ConfigError, NotPermitted
from slurm_power.gpu.wire import AgentReport, GpuReport, NodeLease
from slurm_power.gpu.wire_json import lease_from_json, report_to_json
from slurm_power.testing.fake_clock import FakeClock
from slurm_power.testing.fake_credentials import FakeCredentials, FakeKey


def gpu(uuid: str, *, job_id: int | None) -> GpuReport:
    return GpuReport(uuid, 500.0, 1.0, 1900, 60.0, 0.9, 700.0, "found", 200.0, 700.0, job_id)


def report(*, age_s: float = 0.5) -> AgentReport:
    gpus = (gpu("GPU-a", job_id=7), gpu("GPU-b", job_id=8), gpu("GPU-c", job_id=None))
    return AgentReport("n1", 500.0, age_s, gpus, None)


class Line:
    """A registry and one agent that talks to it as uid `agent_uid`."""

    def __init__(self, *, agent_uid: int = 0) -> None:
        self.clock = FakeClock()
        key = FakeKey()
        self.agent = FakeCredentials(self.clock, key, uid=agent_uid)
        controller = FakeCredentials(self.clock, key)
        self.registry = AgentRegistry(clock=self.clock, credentials=controller, allowed_uids=(0,), lease_s=30.0)

    def exchange(self, body: bytes | None = None) -> NodeLease | None:
        sealed = self.agent.seal(report_to_json(report()) if body is None else body)
        return lease_from_json(self.agent.open(self.registry.exchange(sealed)).payload)


def test_a_lease_names_exactly_the_gpus_of_the_capped_jobs() -> None:
    line = Line()
    line.registry.grant({7: 350.0})
    lease = line.exchange()
    assert lease is not None
    assert lease.cap_watts == {"GPU-a": 350.0}
    assert lease.valid_s == 30.0


def test_a_cap_below_the_board_is_raised_to_what_the_board_can_do() -> None:
    line = Line()
    line.registry.grant({7: 50.0})
    lease = line.exchange()
    assert lease is not None
    assert lease.cap_watts == {"GPU-a": 200.0}


def test_there_is_no_lease_before_the_first_tick() -> None:
    assert Line().exchange() is None


def test_a_controller_whose_tick_has_gone_silent_gives_no_more_leases() -> None:
    line = Line()
    line.registry.grant({7: 350.0})
    line.clock.advance(31.0)
    assert line.exchange() is None


def test_every_lease_has_a_higher_number_than_the_one_before() -> None:
    line = Line()
    line.registry.grant({})
    first, second = line.exchange(), line.exchange()
    assert first is not None
    assert second is not None
    assert second.lease_id > first.lease_id


def test_the_age_of_a_reading_counts_from_when_the_agent_took_it() -> None:
    line = Line()
    line.exchange()
    line.clock.advance(2.0)
    reading = line.registry.readings()["n1"]
    assert line.clock.now_s() - reading.taken_at_s == pytest.approx(2.5)
    assert reading.draw_watts == 2000.0


def test_a_report_of_another_user_is_refused_and_leaves_no_trace() -> None:
    line = Line(agent_uid=1000)
    with pytest.raises(NotPermitted, match="uid 1000"):
        line.exchange()
    assert line.registry.readings() == {}


def test_a_report_cannot_be_sent_twice() -> None:
    line = Line()
    sealed = line.agent.seal(report_to_json(report()))
    line.registry.exchange(sealed)
    with pytest.raises(NotPermitted):
        line.registry.exchange(sealed)


def test_a_stranger_without_the_clusters_key_is_refused() -> None:
    line = Line()
    with pytest.raises(NotPermitted):
        line.registry.exchange(FakeCredentials(line.clock, FakeKey(b"other")).seal(report_to_json(report())))


def test_nonsense_from_a_trusted_agent_is_named_and_leaves_no_trace() -> None:
    line = Line()
    with pytest.raises(ConfigError):
        line.exchange(b'{"node_name": 3}')
    assert line.registry.readings() == {}
