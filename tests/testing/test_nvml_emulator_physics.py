"""What the emulated board does to draw, clock, heat, counters and work. The node's clock jumps: no waiting."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slurm_power.errors import ConfigError, DeviceGone, DeviceRefused
from slurm_power.testing.nvml_emulator.emulator import EmulatedNode

ME = os.getpid()
SW_POWER_CAP, SW_THERMAL, HW_THERMAL, IDLE = 0x4, 0x20, 0x40, 0x1
SHARED_NODE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[EmulatedNode]:
    with EmulatedNode.create(tmp_path / "n1" / "gpus.state") as opened:
        yield opened


@pytest.fixture
def gpu(node: EmulatedNode) -> str:
    """One of the node's GPUs, at full work."""
    uuid = node.gpu_uuids()[0]
    node.open_load(uuid, pid=ME, utilisation_fraction=1.0)
    return uuid


def work_in(node: EmulatedNode, gpu: str, *, seconds: float) -> float:
    before_s = node.work_done(gpu, pid=ME)
    node.pass_time(seconds)
    return node.work_done(gpu, pid=ME) - before_s


def test_an_idle_node_draws_its_base_and_four_idle_gpus(node: EmulatedNode) -> None:
    assert node.draw_watts() == pytest.approx(500 + 4 * 70)
    assert node.gpu_throttle_reasons(node.gpu_uuids()[0]) == IDLE


def test_full_work_just_meets_the_default_limit_without_throttling(node: EmulatedNode, gpu: str) -> None:
    assert node.gpu_draw_watts(gpu) == pytest.approx(700)
    assert node.gpu_clock_mhz(gpu) == 1980
    assert node.gpu_throttle_reasons(gpu) == 0


@SHARED_NODE
@given(cap_watts=st.floats(200, 700), utilisation=st.floats(0, 1))
def test_no_draw_is_ever_above_its_cap(node: EmulatedNode, cap_watts: float, utilisation: float) -> None:
    uuid = node.gpu_uuids()[0]
    node.set_found_cap(uuid, cap_watts)
    node.open_load(uuid, pid=ME, utilisation_fraction=utilisation)
    assert 70 <= node.gpu_draw_watts(uuid) <= cap_watts + 1e-6
    assert 345 <= node.gpu_clock_mhz(uuid) <= 1980
    assert (node.gpu_clock_mhz(uuid) - 345) % 15 == 0


@SHARED_NODE
@given(caps=st.lists(st.floats(200, 700), min_size=2, max_size=2).map(sorted))
def test_a_lower_cap_never_gives_a_higher_clock(node: EmulatedNode, caps: list[float]) -> None:
    uuid = node.gpu_uuids()[0]
    node.open_load(uuid, pid=ME, utilisation_fraction=1.0)
    clocks = []
    for cap_watts in caps:
        node.set_found_cap(uuid, cap_watts)
        clocks.append(node.gpu_clock_mhz(uuid))
    assert clocks == sorted(clocks)


def test_a_cap_costs_less_work_than_it_saves_power(node: EmulatedNode, gpu: str) -> None:
    full_s = work_in(node, gpu, seconds=100)
    node.set_found_cap(gpu, 400)
    capped_s = work_in(node, gpu, seconds=100)
    assert full_s == pytest.approx(100, rel=1e-3)
    assert 400 / 700 < capped_s / full_s < 0.95


def test_the_energy_counter_is_the_integral_of_the_draw(node: EmulatedNode, gpu: str) -> None:
    began_joules, drawn_joules = node.gpu_energy_joules(gpu), 0.0
    for cap_watts, seconds in [(700, 30), (400, 60), (250, 10), (600, 5)]:
        node.set_found_cap(gpu, cap_watts)
        drawn_joules += node.gpu_draw_watts(gpu) * seconds
        node.pass_time(seconds)
    counted_joules = node.gpu_energy_joules(gpu) - began_joules
    assert counted_joules == pytest.approx(drawn_joules, rel=0.01)  # the test's own run time is in it too


def test_a_long_pause_between_two_looks_loses_no_energy(node: EmulatedNode) -> None:
    uuid = node.gpu_uuids()[0]
    began_joules = node.gpu_energy_joules(uuid)
    node.pass_time(7 * 86400)
    assert node.gpu_energy_joules(uuid) - began_joules == pytest.approx(7 * 86400 * 70, rel=1e-4)


def test_the_power_violation_counter_runs_only_while_capped(node: EmulatedNode, gpu: str) -> None:
    node.pass_time(50)
    assert node.power_violation_s(gpu) == 0
    node.set_found_cap(gpu, 300)
    node.pass_time(20)
    assert node.gpu_throttle_reasons(gpu) & SW_POWER_CAP
    assert node.power_violation_s(gpu) == pytest.approx(20, abs=2)


def test_temperature_follows_the_draw_with_delay(node: EmulatedNode, gpu: str) -> None:
    cold = node.gpu_temperature_celsius(gpu)
    node.pass_time(4)
    warming = node.gpu_temperature_celsius(gpu)
    node.pass_time(120)
    hot = node.gpu_temperature_celsius(gpu)
    node.set_found_cap(gpu, 200)
    node.pass_time(120)
    assert cold < warming < hot < 87
    assert node.gpu_temperature_celsius(gpu) < hot - 10


def test_hot_air_slows_the_gpu_but_does_not_stop_it(node: EmulatedNode, gpu: str) -> None:
    node.set_fault(gpu, "overheat")
    seen, hottest = 0, 0.0
    for _ in range(100):
        node.pass_time(1)
        seen |= node.gpu_throttle_reasons(gpu)
        hottest = max(hottest, node.gpu_temperature_celsius(gpu))
    assert seen & SW_THERMAL
    assert seen & HW_THERMAL
    assert 90 <= hottest < 95  # above the hardware's slowdown, below its shutdown
    assert node.thermal_violation_s(gpu) > 50
    assert node.gpu_temperature_celsius(gpu) < 90
    assert 0 < work_in(node, gpu, seconds=10) < 8


def test_once_the_air_is_cool_again_the_gpu_gets_its_speed_back(node: EmulatedNode, gpu: str) -> None:
    node.set_fault(gpu, "overheat")
    node.pass_time(60)
    node.set_fault(gpu, "none")
    node.pass_time(60)
    assert node.gpu_clock_mhz(gpu) == 1980
    assert node.gpu_throttle_reasons(gpu) == 0


def test_a_jittering_clock_moves_under_a_steady_load_and_names_no_reason(node: EmulatedNode, gpu: str) -> None:
    node.set_fault(gpu, "clock-jitter")
    seen, reasons = set(), set()
    for _ in range(40):
        node.pass_time(0.25)
        seen.add(node.gpu_clock_mhz(gpu))
        reasons.add(node.gpu_throttle_reasons(gpu))
    assert max(seen) - min(seen) > 75
    assert reasons == {0}


def test_a_starved_gpu_looks_busy_but_draws_and_does_little(node: EmulatedNode, gpu: str) -> None:
    node.set_fault(gpu, "starved")
    assert node.gpu_utilisation_fraction(gpu) == 1.0
    assert node.gpu_draw_watts(gpu) < 200
    assert work_in(node, gpu, seconds=100) == pytest.approx(15, rel=1e-3)


def test_two_loads_share_one_gpu_and_cannot_use_more_than_all_of_it(node: EmulatedNode, gpu: str) -> None:
    parent = os.getppid()
    node.open_load(gpu, pid=parent, utilisation_fraction=1.0)
    node.pass_time(100)
    assert node.gpu_draw_watts(gpu) <= 700
    assert node.work_done(gpu, pid=parent) == pytest.approx(50, rel=0.05)


def test_a_lost_gpu_draws_nothing_and_its_loads_are_gone(node: EmulatedNode, gpu: str) -> None:
    before_watts = node.draw_watts()
    node.set_fault(gpu, "lost")
    assert node.gpu_draw_watts(gpu) == 0
    assert node.draw_watts() == pytest.approx(before_watts - 700)
    with pytest.raises(DeviceGone):
        node.work_done(gpu, pid=ME)
    with pytest.raises(DeviceGone):
        node.open_load(gpu, pid=ME, utilisation_fraction=0.5)


def test_a_gpu_that_comes_back_has_its_defaults_and_kept_its_energy(node: EmulatedNode, gpu: str) -> None:
    node.set_found_cap(gpu, 300)
    node.pass_time(100)
    energy_joules = node.gpu_energy_joules(gpu)
    node.set_fault(gpu, "lost")
    node.pass_time(100)
    node.set_fault(gpu, "none")
    assert node.gpu_cap_watts(gpu) == 700
    assert node.gpu_draw_watts(gpu) == 70
    assert node.gpu_energy_joules(gpu) == pytest.approx(energy_joules, rel=0.01)


def test_uuids_follow_from_the_seed_and_differ_between_nodes(tmp_path: Path) -> None:
    def uuids(folder: str, seed: str = "") -> list[str]:
        with EmulatedNode.create(tmp_path / folder / "gpus.state", uuid_seed=seed) as node:
            return node.gpu_uuids()

    assert uuids("n1") == uuids("n1")
    assert not set(uuids("n1")) & set(uuids("n2"))
    assert uuids("n3", "same") == uuids("n4", "same")


@pytest.mark.parametrize("count", [2, 3, 4, 8, 16])
def test_no_nvml_index_equals_its_minor_number(tmp_path: Path, count: int) -> None:
    with EmulatedNode.create(tmp_path / "n" / "gpus.state", gpu_count=count) as node:
        in_nvml_order = node.gpu_uuids()
        by_minor = [node.uuid_of_minor(minor) for minor in range(count)]
    assert sorted(by_minor) == sorted(in_nvml_order)
    assert all(a != b for a, b in zip(in_nvml_order, by_minor, strict=True))


def test_a_gpu_has_room_for_sixteen_loads_and_refuses_the_next(node: EmulatedNode, children: list[int]) -> None:
    uuid = node.gpu_uuids()[0]
    for pid in children[:16]:
        node.open_load(uuid, pid=pid, utilisation_fraction=0.01)
    with pytest.raises(DeviceRefused):
        node.open_load(uuid, pid=children[16], utilisation_fraction=0.01)


@pytest.fixture
def children() -> Iterator[list[int]]:
    """Seventeen processes that only wait."""
    waiting = [subprocess.Popen(["sleep", "60"]) for _ in range(17)]
    yield [process.pid for process in waiting]
    for process in waiting:
        process.kill()
        process.wait()


@pytest.mark.parametrize("watts", [199.0, 701.0, float("nan")])
def test_another_administrator_is_held_to_the_boards_range_too(node: EmulatedNode, watts: float) -> None:
    with pytest.raises(ConfigError):
        node.set_found_cap(node.gpu_uuids()[0], watts)
