"""The pool manager over fake jobs and stub instances: plans are held to, losses mended, budgets obeyed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from slurm_power.adapters.serving_instance_http import HttpServingInstance
from slurm_power.daemons.pool_clocks import PoolClocks
from slurm_power.daemons.pool_config import PoolConfig
from slurm_power.daemons.pool_leash import PoolLeash
from slurm_power.daemons.pool_manager import PoolManager, PoolParts
from slurm_power.daemons.pool_roster import Roster
from slurm_power.daemons.pool_sizes import PoolSizes
from slurm_power.daemons.pool_state import load_state
from slurm_power.daemons.pool_watch import PoolWatch
from slurm_power.daemons.router_desk import Desk
from slurm_power.daemons.router_ticket import Asked
from slurm_power.llm.instance_clock import ClockConfig
from slurm_power.llm.pool_wire import Budget
from slurm_power.llm.profile_json import parse_profile
from slurm_power.llm.request_class import DEFAULT_SLO, REQUEST_CLASSES
from slurm_power.testing.fake_clock import FakeClock
from slurm_power.testing.fake_journal import FakeJournal
from slurm_power.testing.fake_serving_jobs import FakeServingJobs
from slurm_power.testing.stub_instance import StubInstance

ALL = frozenset({"instance", "queue", "cluster"})
LL = REQUEST_CLASSES[-1]
PROFILE: dict[str, Any] = {
    "name": "made-up", "origin": "made up", "formula": "-", "fit_error_fraction": {},
    "server": {"gpus": 8, "off_watts_per_gpu": 0, "host_watts": 0, "boot_s": 0},
    "clock": {"clocks_mhz": [1000, 1500, 2000], "speed_fractions": [0.5, 0.8, 1], "watts_fractions": [0.4, 0.7, 1]},
    "shards": [
        {"gpus": gpus, "prefill_tokens": [0, 1000], "prefill_s": [0.02, 0.07], "decode_s": {"base": 0.02,
         "per_sequence": 0.001, "per_sequence_squared": 0, "per_context_token": 0}, "decode_watts": {"floor": 200,
         "span": 300, "steepness": 1, "middle_log2": 2}, "prefill_watts": 100, "idle_watts": 50,
         "cache_tokens": 20_000, "most_sequences": 16, "startup_s": 10, "startup_joules": 0}
        for gpus in (1, 2)
    ],
}  # fmt: skip


class Site:
    def __init__(self, folder: Path, *, layers: frozenset[str] = ALL, **changed: Any) -> None:
        self.folder = folder
        (folder / "token").write_text("stub-token")
        self.clock, self.jobs, self.journal = FakeClock(), FakeServingJobs(), FakeJournal()
        self.stubs: dict[int, StubInstance] = {}
        self.layers, self.changed = layers, changed
        self.build()

    def build(self) -> None:
        """A manager; again: the next one, after the first was killed."""
        values = {
            "model": "/models/large", "small_model": "/models/small", "profile": Path("p"), "small_profile": Path("p"),
            "gpus_per_instance": 1, "most_instances": 4, "sbatch_script": Path("s"), "max_num_seqs": 16,
            "cluster_period_s": 60.0, "slot_s": 10.0, "drain_s": 0.0,
        }  # fmt: skip
        config = PoolConfig(**values | self.changed)
        profile = parse_profile(PROFILE, where="made-up")
        state, self.roster = load_state(self.journal), Roster()
        self.roster.one_pool = "queue" not in self.layers
        self.desk = Desk(
            self.roster, slo=DEFAULT_SLO, lengths=state.lengths, now_s=self.clock.now_s, max_waiting=100,
            patience_s=10.0, on_hurry=lambda pools: self.manager.hurry(pools),
        )  # fmt: skip
        self.desk.by_class = "queue" in self.layers
        self.watch = PoolWatch(
            config, roster=self.roster, jobs=self.jobs, open_instance=HttpServingInstance, profile=profile,
            clock=self.clock, pools=state.pools,
        )  # fmt: skip
        self.sizes = PoolSizes(
            config, roster=self.roster, desk=self.desk, watch=self.watch, jobs=self.jobs, profile=profile,
            clock=self.clock, layers=self.layers, template=state.template,
        )  # fmt: skip
        clocks = PoolClocks(
            roster=self.roster, watch=self.watch, clock=self.clock, slo=DEFAULT_SLO, config=ClockConfig(),
            steer="instance" in self.layers,
        )  # fmt: skip
        shards = [one | {"decode_watts": one["decode_watts"] | {"floor": 50}} for one in PROFILE["shards"]]
        small = parse_profile(PROFILE | {"shards": shards}, where="small")
        self.leash = PoolLeash(config, roster=self.roster, watch=self.watch, small_profile=small, clock=self.clock)
        self.manager = PoolManager(
            PoolParts(
                config=config, roster=self.roster, desk=self.desk, watch=self.watch, sizes=self.sizes, clocks=clocks,
                leash=self.leash, link=None, journal=self.journal, on_look=lambda: None,
            )
        )  # fmt: skip

    async def look(self, *, after_s: float = 2.0) -> None:
        self.clock.advance(after_s)
        await self.manager.look()

    async def serve_all(self) -> None:
        """Every job gets a stub that serves for it."""
        for job_id in list(self.jobs.there):
            if job_id not in self.stubs:
                self.stubs[job_id] = stub = StubInstance()
                await stub.start()
                self.jobs.serve(job_id, stub.url, str(self.folder / "token"))
        await self.look()

    async def arrive(self, count: int, *, prompt: int = 400, output: int = 100) -> None:
        """Requests that were answered at once, as far as the counters go."""
        for _ in range(count):
            asked = Asked(
                model="chat", caller="a", prompt_tokens=prompt, max_tokens=None, arrived_at_s=self.clock.now_s()
            )
            ticket = await self.desk.place(asked)
            ticket.began()
            ticket.done(output_tokens=output)

    async def settle(self) -> None:
        """Whatever runs beside."""
        for _ in range(100):
            await asyncio.sleep(0.005)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60.0))


def test_it_starts_with_one_instance_and_routes_to_it_once_it_serves(tmp_path: Path) -> None:
    async def test() -> None:
        site = Site(tmp_path)
        await site.look()
        assert len(site.jobs.there) == 1
        assert site.roster.serving() == 0
        await site.look()
        assert len(site.jobs.there) == 1  # it waits: no second one for it
        await site.serve_all()
        assert site.roster.serving() == 1
        assert site.manager.models() == {"chat": True, "large": True, "small": True}

    run(test())


def test_without_the_cluster_layer_all_instances_run(tmp_path: Path) -> None:
    async def test() -> None:
        site = Site(tmp_path, layers=frozenset())
        await site.look()
        assert len(site.jobs.there) == 4

    run(test())


def test_load_starts_instances_before_the_epochs_end_and_their_end_drains_them(tmp_path: Path) -> None:
    async def test() -> None:
        site = Site(tmp_path)
        await site.look()
        await site.serve_all()
        for _ in range(6):
            await site.arrive(60)
            await site.look(after_s=4.0)
        many = len(site.jobs.there)
        assert many > 1
        await site.serve_all()
        for _ in range(40):
            await site.look(after_s=10.0)
        await site.settle()
        await site.look()
        assert len(site.jobs.there) == 1
        assert len(site.jobs.ended) == many - 1

    run(test())


def test_a_lost_job_is_started_again_and_one_that_never_serves_is_not_in_a_loop(tmp_path: Path) -> None:
    async def test() -> None:
        site = Site(tmp_path)
        await site.look()
        await site.serve_all()
        site.jobs.lose(1)
        await site.look()
        assert list(site.jobs.there) == [2]
        for _ in range(10):  # each ends before it serves
            for job_id in list(site.jobs.there):
                site.jobs.lose(job_id)
            await site.look(after_s=2.0)
        assert site.sizes.started <= 5
        assert "start" in site.watch.failures

    run(test())


def test_slurm_that_does_not_answer_changes_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        site = Site(tmp_path)
        await site.look()
        await site.serve_all()
        site.jobs.answers = False
        rounds = asyncio.ensure_future(site.manager.run())
        await site.settle()
        assert site.roster.serving() == 1
        assert "slurmctld" in site.manager.failures["look"]
        rounds.cancel()

    run(test())


def test_the_next_manager_finds_the_jobs_and_what_was_learnt(tmp_path: Path) -> None:
    async def test() -> None:
        site = Site(tmp_path)
        await site.look()
        await site.serve_all()
        await site.arrive(50, output=7)
        await site.manager.save()
        site.build()
        await site.look()
        await site.look()
        assert (list(site.jobs.there), site.roster.serving()) == ([1], 1)
        found = site.desk.lengths.predict(model="chat", caller="a", prompt_tokens=400)
        assert found.median_tokens < 20

    run(test())


def test_idle_instances_get_a_lower_clock_and_a_cry_for_help_raises_it_at_once(tmp_path: Path) -> None:
    async def test() -> None:
        site = Site(tmp_path)
        await site.look()
        await site.serve_all()
        for _ in range(8):
            await site.look(after_s=5.0)
            await site.manager.instances()
        stub = site.stubs[1]
        lowest_mhz = stub.sm_clock_mhz
        assert lowest_mhz in (1000, 1500)
        now_s = site.clock.now_s()
        for _ in range(5):
            await site.desk.place(Asked(model="", caller="", prompt_tokens=3000, max_tokens=9, arrived_at_s=now_s))
        await site.manager._parts.clocks.hurry({LL}, site.desk.serves)
        assert stub.sm_clock_mhz is None or stub.sm_clock_mhz > lowest_mhz

    run(test())


def test_without_the_instance_layer_no_clock_is_touched(tmp_path: Path) -> None:
    async def test() -> None:
        site = Site(tmp_path, layers=frozenset({"queue", "cluster"}))
        await site.look()
        await site.serve_all()
        for _ in range(5):
            await site.manager.instances()
        assert [action for action, _ in site.stubs[1].steered] == ["limits"]  # its seats, once

    run(test())


def test_a_budget_is_obeyed_by_clock_then_batch_then_model_and_ends_by_itself(tmp_path: Path) -> None:
    async def test() -> None:
        site = Site(tmp_path)
        await site.look()
        await site.serve_all()
        stub = site.stubs[1]

        async def limit(watts: float) -> tuple[int | None, int, str]:
            site.leash.take({"llm/LL": Budget(watts, 100.0)})
            await site.manager.instances()
            await site.settle()
            await site.look()
            return stub.sm_clock_mhz, stub.max_num_seqs, stub.active

        assert await limit(350.0) == (1500, 16, "large")
        assert await limit(200.0) == (1000, 16, "large")
        clock_mhz, seats, model = await limit(120.0)
        assert (clock_mhz, model) == (1000, "large")
        assert 1 <= seats < 16
        assert await limit(10.0) == (1000, 1, "small")
        assert site.leash.shortfall_watts["llm/LL"] > 0
        site.clock.advance(101.0)
        for _ in range(2):
            await site.manager.instances()
            await site.settle()
            await site.look()
        assert (stub.max_num_seqs, stub.active) == (16, "large")

    run(test())


def test_its_view_is_json_and_names_what_fails(tmp_path: Path) -> None:
    async def test() -> None:
        site = Site(tmp_path)
        await site.look()
        await site.serve_all()
        await site.stubs[1].stop()
        await site.look()
        view = json.loads(json.dumps(site.manager.view()))
        assert view["instances"][0]["accepts"] is False
        assert list(view["failures"]) == ["LL-1"]

    run(test())


async def with_one_serving(site: Site) -> int:
    await site.look()
    await site.serve_all()
    (job_id,) = site.jobs.there
    return job_id


def test_an_instance_whose_time_runs_out_is_relieved_by_one_that_serves(tmp_path: Path) -> None:
    async def test() -> None:
        site = Site(tmp_path)
        first = await with_one_serving(site)
        site.jobs.limit(first, left_s=19.0, limit_s=1000.0)  # two starts of 10 s
        await site.look()
        assert len(site.jobs.there) == 2
        assert site.roster.serving() == 1, "the first one serves on"
        await site.look()
        assert len(site.jobs.there) == 2
        await site.serve_all()
        await site.settle()
        assert site.jobs.ended == [first]
        await site.look()
        assert site.roster.serving() == 1
        assert site.watch.lost == 0

    run(test())


def test_without_a_free_gpu_it_drains_in_time_for_a_relief_on_its_own(tmp_path: Path) -> None:
    async def test() -> None:
        site = Site(tmp_path)
        first = await with_one_serving(site)
        site.jobs.refuses = "no GPU for you"
        site.jobs.limit(first, left_s=11.0, limit_s=1000.0)
        await site.look()
        await site.settle()
        assert site.jobs.ended == []
        site.jobs.limit(first, left_s=9.0, limit_s=1000.0)  # a start takes 10 s
        await site.look()
        await site.settle()
        assert site.jobs.ended == [first]

    run(test())


def test_instances_that_end_together_never_drain_together(tmp_path: Path) -> None:
    async def test() -> None:
        site = Site(tmp_path, least_instances=2)
        await site.look()
        await site.serve_all()
        first, second = site.jobs.there
        site.jobs.refuses = "no GPU for you"
        for job_id in (first, second):
            site.jobs.limit(job_id, left_s=25.0, limit_s=1000.0)
        await site.look()
        await site.settle()
        assert len(site.jobs.ended) == 1
        site.jobs.refuses = ""
        await site.look(after_s=11.0)  # the refusal made it wait
        await site.serve_all()
        assert site.roster.serving() == 2
        assert len(site.jobs.ended) == 1

    run(test())
