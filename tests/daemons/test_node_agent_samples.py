"""What the agent keeps for quality reports: every sample once, in blocks that a store never thins."""

from __future__ import annotations

from slurm_power.daemons.node_agent_gpu import ManagedGpu
from slurm_power.daemons.node_agent_samples import BOARD_PERIOD_S, SampleKeeper
from slurm_power.daemons.node_agent_views import GpuView
from slurm_power.gpu.borrowing import Borrow, Knob
from slurm_power.gpu.caps import CapSources, ClockSources, effective_cap, effective_clock
from slurm_power.ports.telemetry_store import Point
from slurm_power.sla.samples import Samples, opened, unsealed
from slurm_power.testing.fake_gpu import FakeGpu

WALL_S = 1.8e9


class Agent:
    def __init__(self, *, seal_period_s: float = 10.0) -> None:
        self.fake = FakeGpu(wants_watts=600.0)
        self.gpu = ManagedGpu(self.fake)
        self.keeper = SampleKeeper(node_name="n1", seal_period_s=seal_period_s)

    def tick(self, second: float) -> list[Point]:
        self.gpu.take_sample(now_s=second)
        cap = effective_cap(CapSources(found_watts=700.0, min_watts=200.0, max_watts=700.0, lease_watts=400.0))
        view = GpuView(self.gpu, cap, effective_clock(ClockSources(345, 1980)), job_id=7)
        return self.keeper.keep([view], wall_s=WALL_S + second)


def blocks(points: list[Point]) -> Samples:
    found = [opened(point.wall_s, point.fields) for point in points if point.measurement == "gpu_block"]
    return unsealed([block for block in found if block is not None])


def test_every_sample_is_in_exactly_one_block() -> None:
    agent = Agent()
    points = [point for second in range(25) for point in agent.tick(second)] + agent.keeper.seal_all()
    samples = blocks(points)
    assert samples.wall_ms.tolist() == [int((WALL_S + second) * 1000) for second in range(25)]
    assert agent.keeper.seal_all() == []


def test_a_gpu_that_cannot_be_read_leaves_a_gap_and_no_made_up_sample() -> None:
    agent = Agent()
    points = []
    for second in range(9):
        agent.fake.fault = "lost" if 3 <= second < 6 else "none"
        points += agent.tick(second)
    samples = blocks(points + agent.keeper.seal_all())
    assert len(samples) == 6


def test_a_block_knows_the_limit_in_force_whose_it_was_and_the_lock() -> None:
    agent = Agent()
    agent.tick(0)
    agent.fake.cap_watts = 400.0
    agent.gpu.carry_out(Knob.CLOCK, Borrow(1200), now_s=0.0)
    agent.tick(1)
    samples = blocks(agent.keeper.seal_all())
    assert samples["cap_watts"].tolist() == [700.0, 400.0]
    assert samples["cap_source"].tolist() == [0, 2]  # found, lease
    assert samples["locked_clock_mhz"][1] == 1200.0
    assert samples["throttle_reasons"].tolist() == [0, 4]


def test_the_boards_facts_come_at_once_and_again_every_ten_minutes() -> None:
    agent = Agent(seal_period_s=3600.0)
    seconds = [0.0, 1.0, BOARD_PERIOD_S - 1, BOARD_PERIOD_S + 1, BOARD_PERIOD_S + 2]
    kinds = [[point.measurement for point in agent.tick(second)] for second in seconds]
    assert kinds == [["gpu_board"], [], [], ["gpu_board"], []]
