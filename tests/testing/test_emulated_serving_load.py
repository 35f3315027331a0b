"""A server's stand-in load on an emulated GPU: watts follow its iterations, caps and clocks slow them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm_power.testing.emulated_serving_load import FULL, LEAST, EmulatedServingLoad, utilisation_fraction
from slurm_power.testing.nvml_emulator.emulator import EmulatedNode

IDLE_WATTS = 70.0


@pytest.fixture
def node(tmp_path: Path) -> Iterator[EmulatedNode]:
    with EmulatedNode.create(tmp_path / "gpus.state", gpu_count=1) as made:
        yield made


def held_fraction(node: EmulatedNode, *, own_s: float = 0.1, waiting_s: float = 0.0) -> float:
    """Time added to an iteration, over the CPU time that it takes itself."""
    held: list[float] = []
    load = EmulatedServingLoad(node, node.gpu_uuids()[0], sleep=held.append)
    with load.iteration(64):
        until_s = time.thread_time() + own_s
        while time.thread_time() < until_s:
            pass
        time.sleep(waiting_s)
    return sum(held) / own_s


def test_a_gpu_draws_while_an_iteration_runs_and_idles_between(node: EmulatedNode) -> None:
    uuid = node.gpu_uuids()[0]
    load = EmulatedServingLoad(node, uuid)
    with load.iteration(16):
        assert node.gpu_draw_watts(uuid) == pytest.approx(IDLE_WATTS + utilisation_fraction(16) * 630.0)
    assert node.gpu_draw_watts(uuid) == IDLE_WATTS


def test_a_larger_batch_draws_more_and_less_for_each_token() -> None:
    uses = [utilisation_fraction(tokens) for tokens in (1, 8, 64, 512)]
    assert LEAST < uses[0] < uses[1] < uses[2] < uses[3] < FULL
    assert uses[0] / 1 > uses[1] / 8 > uses[2] / 64 > uses[3] / 512


def test_a_cap_and_a_clock_lock_make_an_iteration_longer(node: EmulatedNode) -> None:
    assert held_fraction(node) == pytest.approx(0.0, abs=0.05)
    node.set_found_cap(node.gpu_uuids()[0], 250.0)
    assert held_fraction(node) > 0.1


def test_waiting_for_other_ranks_is_not_stretched(node: EmulatedNode) -> None:
    node.set_found_cap(node.gpu_uuids()[0], 250.0)
    busy = held_fraction(node)
    assert held_fraction(node, waiting_s=0.4) == pytest.approx(busy, abs=0.1)


def test_a_lost_gpu_costs_one_warning_and_not_the_server(node: EmulatedNode, caplog: pytest.LogCaptureFixture) -> None:
    uuid = node.gpu_uuids()[0]
    load = EmulatedServingLoad(node, uuid)
    with load.iteration(4):
        node.set_fault(uuid, "lost")
    for _ in range(3):
        with load.iteration(4):
            pass
    load.close()
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert warning.getMessage().startswith("the server draws no emulated power from here on: ")


def test_an_iteration_that_fails_ends_its_draw(node: EmulatedNode) -> None:
    uuid = node.gpu_uuids()[0]
    load = EmulatedServingLoad(node, uuid)
    with pytest.raises(RuntimeError), load.iteration(4):
        raise RuntimeError("a peer is gone")
    assert node.gpu_draw_watts(uuid) == IDLE_WATTS
