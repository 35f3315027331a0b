"""A training's stand-in load on emulated GPUs: watts follow what it does, caps and clocks slow it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm_power.testing.emulated_training_load import FULL, EmulatedTrainingLoad, utilisation_fraction
from slurm_power.testing.nvml_emulator.emulator import EmulatedNode

IDLE_WATTS = 70.0


@pytest.fixture
def node(tmp_path: Path) -> Iterator[EmulatedNode]:
    with EmulatedNode.create(tmp_path / "gpus.state", gpu_count=1) as made:
        yield made


def load_on(node: EmulatedNode, *, micro_sequences: float = 4.0) -> EmulatedTrainingLoad:
    uuid = node.gpu_uuids()[0]
    return EmulatedTrainingLoad(node, uuid, sequences_per_step=8.0, micro_sequences=micro_sequences)


def held_per_pass_s(load: EmulatedTrainingLoad, *, pass_s: float = 0.1) -> float:
    before_s = load.slowed_s
    load.on_instruction("forward", "begin")
    time.sleep(pass_s)
    load.on_instruction("forward", "end")
    return (load.slowed_s - before_s) / pass_s


def test_a_gpu_draws_while_a_pass_runs_and_idles_between(node: EmulatedNode) -> None:
    load, uuid = load_on(node), node.gpu_uuids()[0]
    load.on_instruction("forward", "begin")
    busy_watts = node.gpu_draw_watts(uuid)
    load.on_instruction("forward", "end")
    assert busy_watts == pytest.approx(IDLE_WATTS + utilisation_fraction(4.0) * 630.0)
    assert node.gpu_draw_watts(uuid) == IDLE_WATTS


def test_smaller_micro_batches_draw_less_and_take_longer_per_sequence(node: EmulatedNode) -> None:
    assert utilisation_fraction(1.0) == pytest.approx(FULL / 2)
    assert utilisation_fraction(1.0) < utilisation_fraction(2.0) < utilisation_fraction(64.0) < FULL
    # 1 sequence takes as long as 2 at full use, 4 as long as 5
    assert held_per_pass_s(load_on(node, micro_sequences=1.0)) > held_per_pass_s(load_on(node, micro_sequences=4.0))


def test_a_cap_makes_a_pass_longer(node: EmulatedNode) -> None:
    load, uuid = load_on(node), node.gpu_uuids()[0]
    free = held_per_pass_s(load)
    node.set_found_cap(uuid, 250.0)
    assert held_per_pass_s(load) > free + 0.1


def test_the_micro_batch_follows_from_the_passes_of_a_step(node: EmulatedNode) -> None:
    load, uuid = load_on(node, micro_sequences=8.0), node.gpu_uuids()[0]
    for _ in range(8):  # 8 sequences in 8 passes: one each
        load.on_instruction("forward", "begin")
        load.on_instruction("forward", "end")
    load.on_instruction("optimizer", "begin")
    assert node.gpu_utilisation_fraction(uuid) == pytest.approx(FULL)
    load.on_instruction("optimizer", "end")
    load.on_instruction("forward", "begin")
    assert node.gpu_utilisation_fraction(uuid) == pytest.approx(utilisation_fraction(1.0))


def test_closing_ends_the_draw(node: EmulatedNode) -> None:
    load = load_on(node)
    load.on_instruction("backward", "begin")
    load.on_run_end(None)
    assert node.gpu_draw_watts(node.gpu_uuids()[0]) == IDLE_WATTS
