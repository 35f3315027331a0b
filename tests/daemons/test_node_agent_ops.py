"""Local requests against a node with fake GPUs: who may ask what."""

from __future__ import annotations

import json
from typing import Any

import pytest

from slurm_power.daemons.node_agent import NodeAgent, NodeAgentConfig
from slurm_power.daemons.node_agent_book import AgentBook
from slurm_power.daemons.node_agent_ops import LocalOps
from slurm_power.testing.fake_clock import FakeClock
from slurm_power.testing.fake_gpu import FakeGpu, FakeInventory
from slurm_power.testing.fake_job_presence import FakeJobPresence
from slurm_power.testing.fake_journal import FakeJournal
from slurm_power.testing.memory_store import MemoryStore

BOB, EVE, ROOT = 1000, 1001, 0
BEGIN = {
    "op": "job_begin",
    "job_id": 1,
    "uid": BOB,
    "node": "n1",
    "gpus": "0,1",
    "visible": "0,1",
    "options": {"gpu-power-cap": "300"},
}


class Node:
    def __init__(self, **config: Any) -> None:
        self.gpus = [FakeGpu(f"GPU-{n}", n) for n in range(4)]
        self.clock, self.store = FakeClock(), MemoryStore()
        self.agent = NodeAgent(
            NodeAgentConfig(safe_cap_watts=400.0, **config),
            node_name="n1",
            inventory=FakeInventory(self.gpus),
            book=AgentBook(FakeJournal(), boot_id="b"),
            presence=FakeJobPresence(),
            clock=self.clock,
            store=self.store,
        )
        self.agent.start()
        self.agent.tick()
        self.ops = LocalOps(self.agent, clock=self.clock)

    def ask(self, request: dict[str, Any], *, uid: int = ROOT) -> Any:
        """As it would go over the socket: the answer must be JSON."""
        return json.loads(json.dumps(self.ops.answer(json.dumps(request).encode(), uid)))


@pytest.fixture
def node() -> Node:
    made = Node()
    assert made.ask(BEGIN)["ok"]
    return made


def test_a_job_start_answers_which_gpus_it_has(node: Node) -> None:
    assert node.ask(BEGIN) == {"ok": True, "uuids": ["GPU-0", "GPU-1"], "refused": []}


def test_a_bad_option_does_not_keep_the_job_from_its_gpus(node: Node) -> None:
    answer = node.ask(BEGIN | {"job_id": 2, "gpus": "2", "options": {"gpu-power-cap": "$(reboot)"}})
    assert answer["uuids"] == ["GPU-2"]
    assert "must be watts" in answer["refused"][0]


@pytest.mark.parametrize("op", ["job_begin", "task_begin", "job_end"])
def test_only_root_tells_of_jobs(op: str, node: Node) -> None:
    answer = node.ask(BEGIN | {"op": op, "job_id": 5, "gpus": "3"}, uid=BOB)
    assert not answer["ok"]
    assert node.gpus[3].cap_watts == 700


def test_news_of_another_node_is_refused(node: Node) -> None:
    assert "serves n1" in node.ask(BEGIN | {"node": "n2"})["error"]
    assert not node.ask({"op": "job_end", "job_id": 1, "node": "n2"})["ok"]
    assert node.gpus[0].cap_watts == 300


def test_my_gpus_answers_the_owner_and_root_only(node: Node) -> None:
    request = {"op": "my_gpus", "job_id": 1}
    expected = {"ok": True, "uuids": ["GPU-0", "GPU-1"], "node": "n1"}
    assert node.ask(request, uid=BOB) == node.ask(request, uid=ROOT) == expected
    assert not node.ask(request, uid=EVE)["ok"]


def test_a_stranger_cannot_tell_whether_a_job_exists(node: Node) -> None:
    theirs = node.ask({"op": "my_gpus", "job_id": 1}, uid=EVE)["error"]
    nobodys = node.ask({"op": "my_gpus", "job_id": 2}, uid=EVE)["error"]
    assert theirs.replace("1", "") == nobodys.replace("2", "")


def test_set_cap_lowers_and_withdraws(node: Node) -> None:
    request = {"op": "set_cap", "job_id": 1, "uuid": "GPU-0", "watts": 250}
    assert node.ask(request, uid=BOB)["ok"]
    assert node.gpus[0].cap_watts == 250
    assert node.ask(request | {"watts": None}, uid=BOB)["ok"]
    assert node.gpus[0].cap_watts == 300


@pytest.mark.parametrize(
    ("change", "uid"),
    [
        pytest.param({"watts": 301}, BOB, id="raise"),
        pytest.param({"watts": 100}, BOB, id="below-the-board"),
        pytest.param({"uuid": "GPU-3"}, BOB, id="anothers-gpu"),
        pytest.param({"uuid": "GPU-none"}, BOB, id="no-gpu"),
        pytest.param({}, EVE, id="anothers-job"),
    ],
)
def test_set_cap_refuses(change: dict[str, Any], uid: int, node: Node) -> None:
    request = {"op": "set_cap", "job_id": 1, "uuid": "GPU-0", "watts": 250} | change
    assert not node.ask(request, uid=uid)["ok"]
    assert [gpu.cap_watts for gpu in node.gpus] == [300, 300, 700, 700]


def test_set_clock_locks_and_withdraws_and_the_jobs_end_unlocks(node: Node) -> None:
    request = {"op": "set_clock", "job_id": 1, "uuid": "GPU-0", "mhz": 1200}
    assert node.ask(request, uid=BOB)["ok"]
    assert node.ask(request | {"uuid": "GPU-1", "mhz": 1500}, uid=BOB)["ok"]
    assert [gpu.locked_clock_mhz for gpu in node.gpus] == [1200, 1500, None, None]
    assert node.ask(request | {"mhz": None}, uid=BOB)["ok"]
    assert node.gpus[0].locked_clock_mhz is None
    assert node.ask({"op": "job_end", "job_id": 1, "node": "n1"})["ok"]
    assert node.gpus[1].locked_clock_mhz is None


@pytest.mark.parametrize(
    ("change", "uid"),
    [
        pytest.param({"mhz": 1401}, BOB, id="raise"),
        pytest.param({"mhz": 500}, BOB, id="below-the-sites-range"),
        pytest.param({"mhz": 1901}, ROOT, id="above-the-sites-range"),
        pytest.param({"uuid": "GPU-3"}, BOB, id="anothers-gpu"),
        pytest.param({"uuid": "GPU-none"}, BOB, id="no-gpu"),
        pytest.param({}, EVE, id="anothers-job"),
    ],
)
def test_set_clock_refuses(change: dict[str, Any], uid: int) -> None:
    node = Node(min_user_clock_mhz=600, max_user_clock_mhz=1900)
    node.ask(BEGIN | {"options": {"gpu-clock": "1400"}})
    request = {"op": "set_clock", "job_id": 1, "uuid": "GPU-0", "mhz": 1200} | change
    assert not node.ask(request, uid=uid)["ok"]
    assert [gpu.locked_clock_mhz for gpu in node.gpus] == [1400, 1400, None, None]


def test_status_tells_every_number_with_its_age_and_every_source(node: Node) -> None:
    node.clock.advance(3.0)
    status = node.ask({"op": "status"}, uid=EVE)
    first = status["gpus"][0]
    assert (first["cap_watts"], first["cap_source"], first["age_s"], first["job_id"]) == (300, "user", 3.0, 1)
    assert first["cap_sources"] == {"found": 700, "user": 300, "lease": None, "safe": None}


def test_points_are_stamped_by_the_agent(node: Node) -> None:
    point = {"measurement": "job_run", "wall_s": node.clock.wall_s(), "fields": {"event": "start"}, "tags": {"k": "v"}}
    assert node.ask({"op": "points", "job_id": 1, "points": [point]}, uid=BOB) == {"ok": True, "kept": 1}
    node.agent.stop()
    (stored,) = node.store.read("job_run", since_wall_s=0.0)
    assert dict(stored.fields) == {"event": "start", "job_id": 1, "uid": BOB}
    assert dict(stored.tags) == {"k": "v", "node": "n1"}


def test_points_of_others_and_of_the_future_are_refused(node: Node) -> None:
    point = {"measurement": "job_run", "wall_s": node.clock.wall_s(), "fields": {"event": "start"}}
    assert not node.ask({"op": "points", "job_id": 1, "points": [point]}, uid=EVE)["ok"]
    late = point | {"wall_s": node.clock.wall_s() + 3600}
    assert not node.ask({"op": "points", "job_id": 1, "points": [late]}, uid=BOB)["ok"]


def test_a_user_cannot_flood_the_store() -> None:
    node = Node(points_per_s=10.0)
    node.ask(BEGIN)
    point = {"measurement": "job_run", "wall_s": node.clock.wall_s(), "fields": {"x": 1.0}}
    request = {"op": "points", "job_id": 1, "points": [point] * 20}
    assert node.ask(request, uid=BOB)["ok"]
    assert "points per second" in node.ask(request, uid=BOB)["error"]
    node.clock.advance(2.0)
    assert node.ask(request, uid=BOB)["ok"]


@pytest.mark.parametrize("line", [b"", b"null", b"[]", b"\xff\xfe", b'{"op":"status"', b"[" * 100_000])
def test_garbage_is_answered_not_raised(line: bytes, node: Node) -> None:
    assert node.ops.answer(line, EVE)["ok"] is False
