"""An agent writes on while its store is away for ten minutes, and while its clock is set: no sample is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from slurm_power.adapters.telemetry_influxdb import InfluxStore
from slurm_power.adapters.telemetry_sqlite import SqliteStore
from slurm_power.daemons.node_agent import NodeAgent, NodeAgentConfig
from slurm_power.daemons.node_agent_book import AgentBook
from slurm_power.errors import Unavailable
from slurm_power.ports.telemetry_store import TelemetryStore
from slurm_power.testing.fake_clock import FakeClock
from slurm_power.testing.fake_gpu import FakeGpu, FakeInventory
from slurm_power.testing.fake_job_presence import FakeJobPresence
from slurm_power.testing.fake_journal import FakeJournal

GPUS = 8
FLUSH_S = 30.0


@dataclass
class Bench:
    store: TelemetryStore
    break_off: Callable[[], None]
    mend: Callable[[], None]
    kept: Callable[[], int]
    """Different points of GPUs that have arrived."""


def _sqlite(tmp_path: Path) -> Iterator[Bench]:
    folder = tmp_path / "store"
    store = SqliteStore(folder / "telemetry.db", retention_s=9e9, flush_period_s=0.01)

    def break_off() -> None:
        folder.rename(tmp_path / "away")
        folder.write_text("no folder")

    def mend() -> None:
        folder.unlink()
        (tmp_path / "away").rename(folder)

    yield Bench(store, break_off, mend, kept=lambda: len(store.read("gpu", since_wall_s=0)))
    store.close()


class Server:
    """What InfluxDB does with lines: the same line twice is one."""

    def __init__(self) -> None:
        self.up, self.lines = True, set[str]()

    def send(self, lines: Sequence[str]) -> None:
        if not self.up:
            raise Unavailable("connection refused")
        self.lines |= set(lines)


def _influxdb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    server = Server()
    monkeypatch.setattr(InfluxStore, "_send", lambda store, lines: server.send(lines))
    store = InfluxStore(
        url="http://127.0.0.1:9",
        org="o",
        database="d",
        token="",
        spool=tmp_path / "spool.db",
        flush_period_s=0.01,
        backoff_max_s=0.05,
    )
    yield Bench(
        store,
        break_off=lambda: setattr(server, "up", False),
        mend=lambda: setattr(server, "up", True),
        kept=lambda: len([line for line in server.lines if line.startswith("gpu,")]),
    )
    store.close()


@pytest.fixture(params=["sqlite", "influxdb"])
def bench(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    yield from _sqlite(tmp_path) if request.param == "sqlite" else _influxdb(tmp_path, monkeypatch)


@dataclass
class Node:
    agent: NodeAgent
    clock: FakeClock
    ticks: int = 0

    def pass_time(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.advance(1.0)
            self.agent.tick()
            self.ticks += 1


@pytest.fixture
def node(bench: Bench) -> Node:
    clock = FakeClock()
    agent = NodeAgent(
        NodeAgentConfig(safe_cap_watts=400.0, node_base_watts=500.0),
        node_name="n1",
        inventory=FakeInventory([FakeGpu(uuid=f"GPU-{n}", minor_number=n) for n in range(GPUS)]),
        book=AgentBook(FakeJournal(), boot_id="boot-1"),
        presence=FakeJobPresence(),
        clock=clock,
        store=bench.store,
    )
    agent.start()
    return Node(agent, clock)


def test_ten_minutes_without_the_store_lose_no_sample(bench: Bench, node: Node) -> None:
    node.pass_time(30)
    assert bench.store.flush(FLUSH_S)
    bench.break_off()
    node.pass_time(600)
    assert not bench.store.flush(0.2)
    bench.mend()
    node.pass_time(30)
    node.agent.stop()
    assert bench.store.flush(FLUSH_S)
    assert bench.kept() == GPUS * node.ticks
    assert bench.store.dropped() == 0


@pytest.mark.parametrize("step_s", [-30.5, 3600.25])
def test_a_clock_that_is_set_loses_no_sample(bench: Bench, node: Node, step_s: float) -> None:
    node.pass_time(60)
    node.clock.step_wall(step_s)
    node.pass_time(60)
    node.agent.stop()
    assert bench.store.flush(FLUSH_S)
    assert bench.kept() == GPUS * node.ticks
