"""The agent's tick against fake GPUs: caps, give-back, leases, lost boards, full disks."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from slurm_power.daemons.node_agent import NodeAgent, NodeAgentConfig
from slurm_power.daemons.node_agent_book import AgentBook
from slurm_power.errors import DeviceRefused, NotPermitted
from slurm_power.gpu.allocation import Allocation
from slurm_power.gpu.options import PowerOptions
from slurm_power.gpu.wire import GpuReport, NodeLease
from slurm_power.ports.job_presence import Evidence
from slurm_power.ports.journal import Record
from slurm_power.testing.fake_clock import FakeClock
from slurm_power.testing.fake_gpu import FakeGpu, FakeInventory
from slurm_power.testing.fake_job_presence import FakeJobPresence
from slurm_power.testing.fake_journal import FakeJournal
from slurm_power.testing.memory_store import MemoryStore

BOB, EVE = 1000, 1001


def node(cap_watts: float = 700.0, count: int = 4) -> list[FakeGpu]:
    return [FakeGpu(uuid=f"GPU-{n}", minor_number=n, cap_watts=cap_watts) for n in range(count)]


@dataclass
class Bench:
    """One node and whatever agent runs on it."""

    gpus: list[FakeGpu] = field(default_factory=node)
    config: NodeAgentConfig = NodeAgentConfig(safe_cap_watts=400.0, node_base_watts=500.0)
    boot_id: str = "boot-1"
    monitor_only: bool = False
    journal: FakeJournal = field(default_factory=FakeJournal)
    clock: FakeClock = field(default_factory=FakeClock)
    presence: FakeJobPresence = field(default_factory=FakeJobPresence)
    store: MemoryStore = field(default_factory=MemoryStore)

    def start(self) -> NodeAgent:
        """A fresh agent; an earlier one is simply forgotten, as by kill -9."""
        agent = NodeAgent(
            self.config,
            node_name="n1",
            inventory=FakeInventory(self.gpus),
            book=AgentBook(self.journal, boot_id=self.boot_id),
            presence=self.presence,
            clock=self.clock,
            store=self.store,
            monitor_only=self.monitor_only,
        )
        agent.start()
        agent.tick()
        return agent

    def owed(self) -> list[Record]:
        """What would have to be taken up again after a crash."""
        return [record for record in self.journal.records if record["kind"] != "clock"]

    def caps(self) -> list[float]:
        return [gpu.cap_watts for gpu in self.gpus]

    def pass_time(self, agent: NodeAgent, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.clock.advance(1.0)
            agent.tick()


def with_controller(**values: float) -> NodeAgentConfig:
    return NodeAgentConfig(safe_cap_watts=400.0, node_base_watts=500.0, controller_url="http://c", **values)


def job(job_id: int, *minors: int, cap: float | None = None, clock: int | None = None, uid: int = BOB) -> Allocation:
    uuids = tuple(f"GPU-{minor}" for minor in minors)
    return Allocation(job_id, uid, uuids, PowerOptions(gpu_cap_watts=cap, gpu_clock_mhz=clock))


def reports(agent: NodeAgent) -> dict[str, GpuReport]:
    return {gpu.uuid: gpu for gpu in agent.report().gpus}


def test_a_job_caps_exactly_its_own_gpus_and_gives_them_back() -> None:
    bench = Bench()
    agent = bench.start()
    agent.begin(job(1, 0, 2, cap=300), task=False)
    assert bench.caps() == [300, 700, 300, 700]
    agent.end(1)
    assert bench.caps() == [700, 700, 700, 700]
    assert bench.owed() == []


def test_what_was_found_is_given_back_even_when_it_was_not_the_default() -> None:
    bench = Bench(node(cap_watts=550.0))
    agent = bench.start()
    agent.begin(job(1, 1, cap=300), task=False)
    agent.end(1)
    assert bench.caps() == [550, 550, 550, 550]


def test_a_cap_above_what_was_found_changes_nothing() -> None:
    bench = Bench(node(cap_watts=500.0))
    agent = bench.start()
    agent.begin(job(1, 0, cap=600), task=False)
    assert bench.gpus[0].calls == []


def test_two_jobs_on_one_node_do_not_disturb_each_other() -> None:
    bench = Bench()
    agent = bench.start()
    agent.begin(job(1, 0, 1, cap=300), task=False)
    agent.begin(job(2, 2, 3, cap=450, uid=EVE), task=False)
    assert bench.caps() == [300, 300, 450, 450]
    agent.end(1)
    assert bench.caps() == [700, 700, 450, 450]


def test_a_cap_that_is_enforced_already_is_not_written_again() -> None:
    bench = Bench()
    agent = bench.start()
    agent.begin(job(1, 0, cap=300), task=False)
    bench.pass_time(agent, 5)
    assert bench.gpus[0].calls == ["cap 300"]


def test_the_journal_is_written_before_the_first_write_to_the_board() -> None:
    order: list[str] = []

    class Watched(FakeGpu):
        def set_cap_watts(self, watts: float) -> None:
            loans = [record["found"] for record in bench.journal.records if record["kind"] == "loan"]
            order.append(f"set {watts:g} with {loans} on disk")
            FakeGpu.set_cap_watts(self, watts)

    bench = Bench([Watched("GPU-0")])
    bench.start().begin(job(1, 0, cap=300), task=False)
    assert order == ["set 300 with [700.0] on disk"]


def test_a_full_disk_means_no_cap_and_an_error_not_a_cap_that_nobody_can_undo() -> None:
    bench = Bench()
    agent = bench.start()
    bench.journal.disk_full = True
    agent.begin(job(1, 0, cap=300), task=False)
    assert bench.caps()[0] == 700
    assert "no space left" in str(reports(agent)["GPU-0"].error)
    bench.journal.disk_full = False
    agent.tick()
    assert bench.caps()[0] == 300
    assert reports(agent)["GPU-0"].error is None


def test_a_refusal_is_forgotten_with_the_wish() -> None:
    bench = Bench()
    agent = bench.start()
    bench.journal.disk_full = True
    agent.begin(job(1, 0, cap=300), task=False)
    agent.end(1)
    assert reports(agent)["GPU-0"].error is None


def test_giving_back_does_not_need_the_disk() -> None:
    bench = Bench()
    agent = bench.start()
    agent.begin(job(1, 0, cap=300), task=False)
    bench.journal.disk_full = True
    agent.end(1)
    assert bench.caps()[0] == 700
    bench.journal.disk_full = False
    agent.tick()
    assert bench.owed() == []


def test_after_kill_9_a_running_job_keeps_its_cap_and_the_found_value_comes_back_at_its_end() -> None:
    bench = Bench(node(cap_watts=600.0))
    bench.start().begin(job(1, 0, cap=300), task=False)
    bench.presence.evidence[1] = Evidence.STEP
    agent = bench.start()
    bench.pass_time(agent, 120)
    assert bench.caps() == [300, 600, 600, 600]
    agent.end(1)
    assert bench.caps() == [600, 600, 600, 600]


def test_after_kill_9_a_job_that_ended_meanwhile_is_found_out() -> None:
    bench = Bench(node(cap_watts=600.0))
    bench.start().begin(job(1, 0, cap=300), task=False)
    agent = bench.start()
    bench.pass_time(agent, 25)
    assert bench.caps()[0] == 300
    bench.pass_time(agent, 20)
    assert bench.caps()[0] == 600


def test_a_lost_epilog_is_found_out_by_the_missing_processes() -> None:
    bench = Bench()
    agent = bench.start()
    agent.begin(job(1, 0, cap=300), task=False)
    bench.presence.evidence[1] = Evidence.PROCESS
    bench.pass_time(agent, 60)
    assert bench.caps()[0] == 300
    del bench.presence.evidence[1]
    bench.pass_time(agent, 45)
    assert bench.caps()[0] == 700


def test_when_processes_cannot_be_listed_no_job_is_dropped() -> None:
    bench = Bench()
    agent = bench.start()
    agent.begin(job(1, 0, cap=300), task=False)
    bench.presence.readable = False
    bench.pass_time(agent, 200)
    assert bench.caps()[0] == 300


def test_the_next_job_on_a_gpu_ends_the_one_whose_end_was_lost() -> None:
    bench = Bench(node(cap_watts=600.0))
    agent = bench.start()
    agent.begin(job(1, 0, 1, cap=300), task=False)
    agent.begin(job(2, 1, uid=EVE), task=False)
    assert bench.caps() == [600, 600, 600, 600]
    agent.begin(job(3, 0, cap=400), task=False)
    agent.end(3)
    assert bench.caps()[0] == 600


def test_a_gpu_shared_by_two_running_jobs_is_not_capped_for_either() -> None:
    bench = Bench()
    agent = bench.start()
    agent.begin(job(1, 0, cap=300), task=False)
    bench.presence.evidence[1] = Evidence.STEP
    with pytest.raises(DeviceRefused, match="shares a GPU with job 1"):
        agent.begin(job(2, 0, cap=250, uid=EVE), task=False)
    assert bench.caps()[0] == 700
    with pytest.raises(NotPermitted):
        agent.begin(job(2, 0, cap=250, uid=EVE), task=True)
    assert bench.caps()[0] == 700


def test_a_task_cannot_take_a_gpu_that_another_job_holds() -> None:
    bench = Bench()
    agent = bench.start()
    agent.begin(job(1, 0, cap=300), task=False)
    with pytest.raises(NotPermitted):
        agent.begin(job(2, 0, cap=200, uid=EVE), task=True)
    assert bench.caps()[0] == 300


def test_a_task_of_a_job_whose_start_was_lost_still_gets_its_cap() -> None:
    bench = Bench()
    agent = bench.start()
    agent.begin(job(1, 0, cap=300), task=True)
    assert bench.caps()[0] == 300


def test_after_a_reboot_old_loans_are_void() -> None:
    bench = Bench()
    bench.start().begin(job(1, 0, cap=300), task=False)
    bench.gpus[:] = node(cap_watts=700.0)
    bench.boot_id = "boot-2"
    agent = bench.start()
    assert reports(agent)["GPU-0"].job_id is None
    assert all(gpu.calls == [] for gpu in bench.gpus)


def test_a_clean_stop_gives_everything_back_and_a_restart_caps_the_running_job_again() -> None:
    bench = Bench(node(cap_watts=600.0))
    agent = bench.start()
    agent.begin(job(1, 0, cap=300, clock=1200), task=False)
    assert bench.gpus[0].locked_clock_mhz == 1200
    agent.stop()
    assert bench.caps() == [600, 600, 600, 600]
    assert bench.gpus[0].locked_clock_mhz is None
    bench.start()
    assert bench.caps()[0] == 300
    assert bench.gpus[0].locked_clock_mhz == 1200


def test_after_kill_9_a_clock_lowered_while_running_is_kept_and_unlocked_at_the_jobs_end() -> None:
    bench = Bench()
    agent = bench.start()
    agent.begin(job(1, 0, 1), task=False)
    agent.slow(1, "GPU-1", 900, uid=BOB)
    bench.presence.evidence[1] = Evidence.STEP
    agent = bench.start()
    assert [gpu.locked_clock_mhz for gpu in bench.gpus] == [None, 900, None, None]
    agent.end(1)
    assert bench.gpus[1].locked_clock_mhz is None
    assert bench.owed() == []


def test_a_job_cannot_slow_the_gpus_of_another() -> None:
    bench = Bench()
    agent = bench.start()
    agent.begin(job(1, 0), task=False)
    agent.begin(job(2, 1, uid=EVE), task=False)
    for job_id, uuid in ((1, "GPU-1"), (2, "GPU-1")):
        with pytest.raises(NotPermitted):
            agent.slow(job_id, uuid, 900, uid=BOB)
    assert bench.gpus[1].locked_clock_mhz is None


def test_giving_back_carries_on_past_a_board_that_refuses() -> None:
    bench = Bench()
    agent = bench.start()
    agent.begin(job(1, 0, 1, 2, cap=300), task=False)
    bench.gpus[0].fault = "unknown-error"
    bench.gpus[1].fault = "no-permission"
    agent.end(1)
    assert bench.caps() == [300, 300, 700, 700]
    bench.gpus[0].fault = bench.gpus[1].fault = "none"
    bench.pass_time(agent, 15)
    assert bench.caps() == [700, 700, 700, 700]
    assert bench.owed() == []


def test_a_lost_gpu_is_reported_and_the_others_go_on() -> None:
    bench = Bench()
    agent = bench.start()
    bench.gpus[0].fault = "lost"
    agent.begin(job(1, 0, 1, cap=300), task=False)
    agent.tick()
    lost = reports(agent)["GPU-0"]
    assert lost.draw_watts is None
    assert "GPU is lost" in str(lost.error)
    assert bench.caps() == [700, 300, 700, 700]


def test_a_board_that_was_reset_is_treated_anew() -> None:
    bench = Bench(node(cap_watts=600.0))
    agent = bench.start()
    agent.begin(job(1, 0, cap=300), task=False)
    bench.gpus[0].fault = "lost"
    agent.tick()
    bench.gpus[0].fault, bench.gpus[0].cap_watts = "none", 700.0  # a reset board has its default limit
    agent.tick()
    assert bench.caps()[0] == 300
    agent.end(1)
    assert bench.caps()[0] == 700


def test_a_board_that_only_went_silent_still_owes_us_what_was_found() -> None:
    bench = Bench(node(cap_watts=600.0))
    agent = bench.start()
    agent.begin(job(1, 0, cap=300), task=False)
    bench.gpus[0].fault = "lost"
    agent.tick()
    bench.gpus[0].fault = "none"
    agent.tick()
    agent.end(1)
    assert bench.caps()[0] == 600


def test_without_a_lease_the_safe_cap_holds_and_with_one_the_lease() -> None:
    bench = Bench(config=with_controller())
    agent = bench.start()
    assert bench.caps() == [400, 400, 400, 400]
    agent.hear_lease(NodeLease("n1", 1, 30.0, {"GPU-1": 350.0}), received_at_s=bench.clock.now_s())
    assert bench.caps() == [700, 350, 700, 700]
    assert reports(agent)["GPU-1"].cap_source == "lease"
    bench.pass_time(agent, 31)
    assert bench.caps() == [400, 400, 400, 400]
    assert reports(agent)["GPU-1"].cap_source == "safe"


def test_a_lease_never_lifts_a_users_cap() -> None:
    bench = Bench(config=with_controller())
    agent = bench.start()
    agent.begin(job(1, 0, cap=300), task=False)
    agent.hear_lease(NodeLease("n1", 1, 30.0, {"GPU-0": 500.0}), received_at_s=bench.clock.now_s())
    assert bench.caps()[0] == 300
    assert reports(agent)["GPU-0"].cap_source == "user"


def test_a_safe_cap_that_was_found_at_a_restart_is_not_taken_for_the_found_value() -> None:
    bench = Bench(node(cap_watts=650.0), config=with_controller())
    bench.start()
    assert bench.caps() == [400, 400, 400, 400]
    bench.start().stop()
    assert bench.caps() == [650, 650, 650, 650]


def test_users_are_kept_inside_the_sites_range() -> None:
    config = NodeAgentConfig(safe_cap_watts=400.0, min_user_cap_watts=250.0, max_user_cap_watts=500.0)
    bench = Bench(config=config)
    agent = bench.start()
    agent.begin(job(1, 0, cap=210), task=False)
    agent.begin(job(2, 1, cap=650), task=False)
    assert bench.caps()[:2] == [250, 500]


def test_a_user_lowers_only_their_own_gpus() -> None:
    bench = Bench()
    agent = bench.start()
    agent.begin(job(1, 0, cap=300), task=False)
    agent.begin(job(2, 1, uid=EVE), task=False)
    agent.lower(1, "GPU-0", 250.0, uid=BOB)
    assert bench.caps()[0] == 250
    for uid, uuid, watts in ((EVE, "GPU-0", 220.0), (BOB, "GPU-1", 220.0)):
        with pytest.raises(NotPermitted):
            agent.lower(1, uuid, watts, uid=uid)
    with pytest.raises(DeviceRefused, match="may only lower"):
        agent.lower(1, "GPU-0", 310.0, uid=BOB)
    assert bench.caps()[:2] == [250, 700]
    agent.lower(1, "GPU-0", None, uid=BOB)
    assert bench.caps()[0] == 300


def test_a_monitor_sets_nothing() -> None:
    bench = Bench(config=with_controller(), monitor_only=True)
    agent = bench.start()
    agent.begin(job(1, 0, cap=300), task=False)
    assert all(gpu.calls == [] for gpu in bench.gpus)
    assert reports(agent)["GPU-0"].cap_source == "found"


def test_a_refused_cap_is_reported_and_not_tried_every_tick() -> None:
    bench = Bench()
    agent = bench.start()
    bench.gpus[0].fault = "no-permission"
    agent.begin(job(1, 0, 1, cap=300), task=False)
    assert bench.caps() == [700, 300, 700, 700]
    assert "Insufficient Permissions" in str(reports(agent)["GPU-0"].error)
    bench.gpus[0].fault = "none"
    bench.pass_time(agent, 5)
    assert bench.caps()[0] == 700
    bench.pass_time(agent, 6)
    assert bench.caps()[0] == 300


def test_samples_and_allocations_reach_the_store_and_jobs_are_no_tags() -> None:
    bench = Bench()
    agent = bench.start()
    agent.begin(job(1, 0, cap=300), task=False)
    bench.pass_time(agent, 2)
    agent.end(1)
    agent.stop()
    gpu = bench.store.read("gpu", since_wall_s=0.0, tags={"uuid": "GPU-0"})
    assert {point.fields["cap_source"] for point in gpu} == {"found", "user"}
    assert all(set(point.tags) == {"node", "uuid"} for point in gpu)
    assert bench.store.read("node", since_wall_s=0.0)[-1].fields["draw_watts"] == 500 + 4 * 70
    events = bench.store.read("gpu_allocation", since_wall_s=0.0, tags={"uuid": "GPU-0"})
    told = [(point.fields["event"], point.fields.get("job_id")) for point in events]
    assert told[:2] == [("free", None), ("begin", 1)], "as does one that starts"
    assert told[-2:] == [("end", 1), ("free", None)], "and one that stops"
    assert len({point.wall_s for point in events}) == len(events)


def test_an_unknown_draw_makes_the_nodes_draw_unknown_not_smaller() -> None:
    bench = Bench()
    agent = bench.start()
    bench.gpus[3].fault = "lost"
    before = len(bench.store.read("node", since_wall_s=0.0))
    bench.pass_time(agent, 10)
    agent.stop()
    assert len(bench.store.read("node", since_wall_s=0.0)) == before


def test_a_node_without_gpus_is_no_error() -> None:
    bench = Bench(gpus=[])
    agent = bench.start()
    agent.begin(job(1), task=False)
    assert agent.report().gpus == ()


def test_the_controller_hears_at_once_that_a_job_came_or_went() -> None:
    bench, heard = Bench(), list[str]()
    agent = bench.start()
    agent.on_jobs_changed = lambda: heard.append("changed")
    agent.begin(job(1, 0), task=False)
    agent.begin(job(1, 0), task=False)
    agent.end(1)
    agent.end(1)
    assert heard == ["changed", "changed"]
