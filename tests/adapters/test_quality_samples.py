"""What reports read from a store: blocks where they are whole, single points elsewhere, nothing twice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from slurm_power.adapters.quality_samples import GpuName, StoredQuality, windows_by_gpu
from slurm_power.daemons.node_agent_samples import block_point
from slurm_power.ports.telemetry_store import Point
from slurm_power.sla.board import Window
from slurm_power.sla.sample import GpuMoment
from slurm_power.sla.samples import from_moments
from slurm_power.sla.seal import sealed
from slurm_power.sla.spans import JobSpan
from slurm_power.testing.memory_store import MemoryStore
from tests.cli.report_store import single
from tests.sla.made_up import BEGIN_S, busy

GPU = GpuName("n1", "GPU-a")


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def moments(begin: int, end: int) -> list[GpuMoment]:
    return [busy(second) for second in range(begin, end)]


def add_block(store: MemoryStore, begin: int, end: int) -> None:
    store.write([block_point(sealed(moments(begin, end)), uuid=GPU.uuid, node_name=GPU.node)])


def add_points(store: MemoryStore, begin: int, end: int, *, uuid: str = GPU.uuid) -> None:
    store.write([single(moment, {"node": GPU.node, "uuid": uuid}) for moment in moments(begin, end)])


def read(store: MemoryStore, begin: float, end: float) -> list[int]:
    """Seconds since BEGIN_S of all readings."""
    chunks = StoredQuality(store).chunks(GPU, Window(BEGIN_S + begin, BEGIN_S + end))
    return [round(at_ms / 1000 - BEGIN_S) for chunk in chunks for at_ms in chunk.wall_ms.tolist()]


def test_blocks_and_the_points_beside_them_make_one_series(store: MemoryStore) -> None:
    add_points(store, 0, 60)
    add_block(store, 10, 30)
    add_block(store, 30, 50)
    assert read(store, 0, 60) == list(range(60))


def test_points_under_a_block_are_not_read_twice_even_if_they_were_thinned(store: MemoryStore) -> None:
    add_block(store, 0, 50)
    store.write([single(replace(busy(second), wall_s=BEGIN_S + second + 0.5), GPU.tags) for second in (10, 20, 30)])
    assert read(store, 0, 50) == list(range(50))


def test_only_the_window_is_read_also_of_a_block_that_began_before_it(store: MemoryStore) -> None:
    add_block(store, 0, 100)
    assert read(store, 40, 60) == list(range(40, 60))


def test_another_gpus_readings_stay_its_own(store: MemoryStore) -> None:
    add_points(store, 0, 10)
    add_points(store, 0, 10, uuid="GPU-b")
    assert read(store, 0, 20) == list(range(10))


def test_where_a_block_is_damaged_the_points_that_are_left_are_read(store: MemoryStore) -> None:
    add_points(store, 0, 20)
    point = block_point(sealed(moments(0, 10)), uuid=GPU.uuid, node_name=GPU.node)
    store.write([Point("gpu_block", point.wall_s, {**point.fields, "sha256": "0"}, point.tags)])
    stored = StoredQuality(store)
    chunks = list(stored.chunks(GPU, Window(BEGIN_S, BEGIN_S + 20)))
    assert sum(map(len, chunks)) == 20
    assert stored.damaged_blocks == 1


def test_a_week_is_read_in_parts_that_fit_without_a_seam(store: MemoryStore) -> None:
    day = 86_400
    add_points(store, day - 3, day + 3)
    assert read(store, 0, 2 * day) == list(range(day - 3, day + 3))


def test_a_reading_is_the_same_from_a_block_and_from_a_point(store: MemoryStore) -> None:
    one = busy(0, draw_watts=612.345, locked_clock_mhz=1200.0, utilisation_fraction=0.97)
    store.write([single(one, GPU.tags)])
    (chunk,) = StoredQuality(store).chunks(GPU, Window(BEGIN_S - 1, BEGIN_S + 1))
    assert chunk.rows() == from_moments([one]).rows()


def test_the_boards_facts_are_found_near_the_window(store: MemoryStore) -> None:
    fields = {"product": "made-up", "default_cap_watts": 700.0, "slowdown_celsius": 90.0}
    store.write([Point("gpu_board", BEGIN_S, fields, GPU.tags)])
    stored = StoredQuality(store)
    board = stored.board(GPU, Window(BEGIN_S + 600, BEGIN_S + 700))
    assert (board.product, board.tdp_watts, board.slowdown_celsius) == ("made-up", 700.0, 90.0)
    assert stored.board(GPU, Window(BEGIN_S + 9000, BEGIN_S + 9100)).tdp_watts is None


def test_jobs_that_follow_each_other_on_one_gpu_are_windows_of_their_own() -> None:
    spans = [JobSpan(job, 1, "n1", "GPU-a", begin, begin + 5) for job, begin in ((8, 20.0), (7, 10.0))]
    assert windows_by_gpu(spans) == {GPU: [Window(10, 15), Window(20, 25)]}
