"""From the boards to a job's joules: agents that restart, clocks that are set, drivers that are reloaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slurm_power.adapters.energy_ledger import EnergyLedger
from slurm_power.adapters.energy_records import EnergyRecords
from slurm_power.daemons.node_agent import NodeAgent, NodeAgentConfig
from slurm_power.daemons.node_agent_book import AgentBook
from slurm_power.gpu.allocation import Allocation
from slurm_power.monitoring.energy_account import EnergyAccount
from slurm_power.ports.job_presence import Evidence
from slurm_power.testing.fake_clock import FakeClock
from slurm_power.testing.fake_gpu import FakeGpu, FakeInventory
from slurm_power.testing.fake_job_presence import FakeJobPresence
from slurm_power.testing.fake_journal import FakeJournal
from slurm_power.testing.memory_store import MemoryStore

BASE_WATTS = 500.0


@dataclass
class Node:
    """Two GPUs, an agent, and the truth about every joule."""

    gpus: list[FakeGpu] = field(default_factory=lambda: [FakeGpu(uuid=f"GPU-{n}", minor_number=n) for n in range(2)])
    journal: FakeJournal = field(default_factory=FakeJournal)
    clock: FakeClock = field(default_factory=FakeClock)
    presence: FakeJobPresence = field(default_factory=FakeJobPresence)
    store: MemoryStore = field(default_factory=MemoryStore)
    jobs: dict[int, tuple[int, ...]] = field(default_factory=dict)
    true_joules: dict[int | None, float] = field(default_factory=dict)
    agent: NodeAgent | None = None

    def __post_init__(self) -> None:
        for gpu in self.gpus:
            gpu.energy_joules = 1e6
        self.began_wall_s = self.clock.wall_s()
        self.start()

    def start(self) -> None:
        self.agent = NodeAgent(
            NodeAgentConfig(safe_cap_watts=400.0, node_base_watts=BASE_WATTS, energy_mark_period_s=60.0),
            node_name="n1",
            inventory=FakeInventory(self.gpus),
            book=AgentBook(self.journal, boot_id="boot-1"),
            presence=self.presence,
            clock=self.clock,
            store=self.store,
        )
        self.agent.start()
        self.agent.tick()

    def kill(self) -> None:
        """As kill -9, just after its points were handed on: what it can lose otherwise is the store's own test."""
        assert self.agent is not None
        self.agent._flush()
        self.agent = None

    def begin(self, job_id: int, *minors: int) -> None:
        assert self.agent is not None
        self.jobs[job_id] = minors
        self.presence.evidence[job_id] = Evidence.PROCESS
        self.agent.begin(Allocation(job_id, 1000, tuple(f"GPU-{n}" for n in minors)), task=False)

    def end(self, job_id: int) -> None:
        assert self.agent is not None
        del self.jobs[job_id], self.presence.evidence[job_id]
        self.agent.end(job_id)

    def pass_time(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.advance(1.0)
            for minor, gpu in enumerate(self.gpus):
                draw_watts = min(gpu.wants_watts, gpu.cap_watts)
                gpu.energy_joules += draw_watts
                holder = next((job_id for job_id, minors in self.jobs.items() if minor in minors), None)
                self.true_joules[holder] = self.true_joules.get(holder, 0.0) + draw_watts
            if self.agent is not None:
                self.agent.tick()

    def reload_driver(self) -> None:
        for gpu in self.gpus:
            gpu.energy_joules = 0.0

    def account(self, *, apart: bool = False) -> EnergyAccount:
        if self.agent is not None:
            self.agent.stop()
        ledger = EnergyLedger(EnergyRecords(self.store), apart=apart)
        end_s = self.began_wall_s + 2 * 86_400.0
        return ledger.account(self.began_wall_s - 2 * 86_400.0, end_s, facts={}, now_wall_s=end_s)

    @property
    def all_gpu_joules(self) -> float:
        return sum(self.true_joules.values())


def gpu_joules(account: EnergyAccount) -> float:
    return sum(job.spent.gpu.joules for job in account.jobs.values()) + account.idle.gpu.joules


def test_a_job_gets_the_joules_of_its_gpus_and_its_share_of_the_node() -> None:
    node = Node()
    node.pass_time(30)
    node.begin(7, 0)
    node.gpus[0].wants_watts = 600.0
    node.pass_time(300)
    node.end(7)
    node.gpus[0].wants_watts = 70.0
    node.pass_time(30)
    account = node.account()
    (attempt,) = account.jobs[7].attempts
    assert attempt.length_s == pytest.approx(300.0, abs=0.1)
    assert attempt.spent.gpu.counted_joules == pytest.approx(600.0 * 300, rel=1e-6), "the counter was believed by then"
    assert attempt.spent.beside.rest_joules == pytest.approx(BASE_WATTS * 300 / 2, rel=0.01)
    assert account.idle.gpu.joules == pytest.approx(70.0 * (360 + 60), rel=0.01)


def test_jobs_and_idle_add_up_to_the_node_within_one_per_cent() -> None:
    node = Node()
    node.begin(7, 0)
    node.gpus[0].wants_watts = 500.0
    node.pass_time(200)
    node.begin(8, 1)
    node.gpus[1].wants_watts = 650.0
    node.pass_time(200)
    node.end(7)
    node.gpus[0].wants_watts = 70.0
    node.pass_time(200)
    for apart in (False, True):
        account = node.account(apart=apart)
        drawn = EnergyLedger(EnergyRecords(node.store)).check(0.0, 9e9)
        assert account.total_joules == pytest.approx(drawn.drawn_joules, rel=0.01)
        assert (account.apart.joules > 0) is apart


def test_a_requeued_job_has_two_attempts_that_are_summed() -> None:
    node = Node()
    for _ in range(2):
        node.begin(7, 0, 1)
        node.pass_time(100)
        node.end(7)
        node.pass_time(100)
    job = node.account().jobs[7]
    assert [round(attempt.length_s) for attempt in job.attempts] == [100, 100]
    assert job.spent.gpu.joules == pytest.approx(node.true_joules[7], rel=0.01)


def test_a_killed_agent_loses_no_joule_of_a_job_that_runs_on() -> None:
    node = Node()
    node.begin(7, 0)
    node.gpus[0].wants_watts = 600.0
    node.pass_time(90)
    node.kill()
    node.pass_time(400)
    node.start()
    node.pass_time(90)
    node.end(7)
    job = node.account().jobs[7]
    assert len(job.attempts) == 1
    assert job.spent.gpu.joules == pytest.approx(600.0 * 580, rel=1e-3)
    assert job.spent.gpu.unknown_s == 0.0


def test_a_driver_reload_while_no_agent_watched_is_told_as_a_gap() -> None:
    node = Node()
    node.begin(7, 0)
    node.pass_time(60)
    node.kill()
    node.pass_time(200)
    node.reload_driver()
    node.pass_time(100)
    node.start()
    node.pass_time(60)
    node.end(7)
    job = node.account().jobs[7]
    spent = job.spent.gpu
    (gap,) = job.attempts[0].gaps
    assert gap.to_wall_s - gap.from_wall_s == pytest.approx(300.0, abs=1.0)
    assert spent.unknown_s == pytest.approx(300.0, abs=1.0)
    assert spent.joules == pytest.approx(70.0 * 220, rel=0.01), "what the new counter shows is known, the rest is not"


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "end", "kill", "start", "clock", "reload", "load"]),
        st.integers(0, 1),
        st.integers(1, 90),
    ),
    max_size=14,
)


@settings(max_examples=40, deadline=None)
@given(ACTIONS)
def test_whatever_happens_every_joule_has_one_owner(actions: list[tuple[str, int, int]]) -> None:
    node, numbers = Node(), count(1)
    reloaded = False  # then what was drawn since the agent was killed is not all known
    for action, minor, seconds in actions:
        held = [job_id for job_id, minors in node.jobs.items() if minor in minors]
        if action == "begin" and node.agent and not held:
            node.begin(next(numbers), minor)
        elif action == "end" and node.agent and held:
            node.end(held[0])
        elif action == "kill" and node.agent:
            node.kill()
        elif action == "start" and not node.agent:
            node.start()
        elif action == "clock":
            node.clock.step_wall(160.0 * (seconds - 45))  # two hours back or forward
        elif action == "reload" and not node.agent:  # no driver is reloaded while somebody uses it
            reloaded = True
            node.reload_driver()
        elif action == "load":
            node.gpus[minor].wants_watts = 70.0 + 7.0 * seconds
        node.pass_time(seconds)
    if node.agent is None:
        node.pass_time(60)
        node.start()
    account = node.account()
    found = gpu_joules(account)
    assert found <= node.all_gpu_joules * 1.01 + 1500.0
    if not reloaded:
        assert found == pytest.approx(node.all_gpu_joules, rel=0.01, abs=1500.0)
        for job_id, job in account.jobs.items():
            assert job.spent.gpu.joules == pytest.approx(node.true_joules.get(job_id, 0.0), rel=0.01, abs=1500.0)
