"""The agent's loop with its thread to the controller: leases arrive at once, and the end gives everything back."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from job_wrappers.agent_client import AgentClient
from slurm_power.adapters.clock_system import SystemClock
from slurm_power.daemons.node_agent import NodeAgent, NodeAgentConfig
from slurm_power.daemons.node_agent_book import AgentBook
from slurm_power.daemons.node_agent_link import LinkWorker
from slurm_power.daemons.node_agent_loop import AgentLoop
from slurm_power.daemons.node_agent_ops import LocalOps
from slurm_power.daemons.node_agent_socket import LocalServer
from slurm_power.errors import Unavailable
from slurm_power.gpu.wire import AgentReport, NodeLease
from slurm_power.testing.fake_agent_link import FakeAgentLink
from slurm_power.testing.fake_gpu import FakeGpu, FakeInventory
from slurm_power.testing.fake_job_presence import FakeJobPresence
from slurm_power.testing.fake_journal import FakeJournal

NEVER_S = 3600.0  # so long that only being told can be the cause of what happens


class Controller(FakeAgentLink):
    """Caps job 1 on GPU-0 and says when it has answered."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = threading.Event()

    def exchange(self, report: AgentReport) -> NodeLease | None:
        capped = {gpu.uuid: 350.0 for gpu in report.gpus if gpu.job_id == 1}
        self.lease = NodeLease("n1", 1, NEVER_S, capped)
        answer = super().exchange(report)
        self.heard.set()
        return answer


class Running:
    def __init__(self, folder: Path, link: FakeAgentLink) -> None:
        self.gpus = [FakeGpu(f"GPU-{n}", n) for n in range(2)]
        self.client = AgentClient(str(folder / "agent.sock"), timeout_s=10.0)
        config = NodeAgentConfig(
            safe_cap_watts=400.0, controller_url="http://c", sample_period_s=NEVER_S, report_period_s=NEVER_S
        )
        clock = SystemClock()
        agent = NodeAgent(
            config,
            node_name="n1",
            inventory=FakeInventory(self.gpus),
            book=AgentBook(FakeJournal(), boot_id="b"),
            presence=FakeJobPresence(),
            clock=clock,
        )
        server = LocalServer(
            folder / "agent.sock",
            LocalOps(agent, clock=clock).answer,
            clock=clock,
            timeout_s=10.0,
            requests_per_s=1000.0,
            peer_uid=lambda _: 0,
        )
        self.loop = AgentLoop(
            agent, server=server, clock=clock, link=LinkWorker(link, clock=clock, on_lease=server.wake)
        )

    def caps(self) -> list[float]:
        """Asked over the socket, so that the loop has done all that came before."""
        return [gpu["cap_watts"] for gpu in self.client.ask({"op": "status"})["gpus"]]

    def become(self, *caps: float) -> bool:
        return any(self.caps() == list(caps) for _ in range(2000))


@contextmanager
def running(link: FakeAgentLink) -> Iterator[Running]:
    with tempfile.TemporaryDirectory(prefix="loop-", dir="/tmp") as name:
        made = Running(Path(name), link)
        thread = threading.Thread(target=made.loop.run)
        thread.start()
        try:
            yield made
        finally:
            made.loop.stop()
            thread.join(10.0)
        assert not thread.is_alive()


def test_the_first_lease_lifts_the_safe_cap_without_waiting_for_a_tick() -> None:
    with running(Controller()) as node:
        assert node.become(700, 700)


def test_a_new_job_gets_its_lease_without_waiting_for_the_next_report() -> None:
    with running(Controller()) as node:
        assert node.become(700, 700)
        begin = {"op": "job_begin", "job_id": 1, "uid": 1000, "node": "n1", "gpus": "0", "options": {}}
        node.client.ask(begin)
        assert node.become(350, 700)
        node.client.ask({"op": "job_end", "job_id": 1, "node": "n1"})
        assert node.become(700, 700)


def test_without_a_controller_the_safe_cap_holds_and_the_end_gives_back() -> None:
    away = FakeAgentLink()
    away.failure = Unavailable("connection refused")
    with running(away) as node:
        assert node.become(400, 400)
    assert [gpu.cap_watts for gpu in node.gpus] == [700, 700]
