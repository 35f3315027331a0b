"""A training's stand-in load on emulated GPUs: watts follow what it does, caps and clocks slow it."""

from __future__ import annotations

import subprocess
import sys
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


def held_fraction(load: EmulatedTrainingLoad, *, pass_s: float = 0.1, waiting_s: float = 0.0) -> float:
    """Time added to a pass, over the CPU time that it takes itself."""
    before_s = load.slowed_s
    load.on_instruction("forward", "begin")
    until_s = time.thread_time() + pass_s
    while time.thread_time() < until_s:
        pass
    time.sleep(waiting_s)
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
    assert held_fraction(load_on(node, micro_sequences=1.0)) == pytest.approx(1.0, rel=0.2)
    assert held_fraction(load_on(node, micro_sequences=4.0)) == pytest.approx(0.25, rel=0.2)


def test_a_cap_makes_a_pass_longer(node: EmulatedNode) -> None:
    load, uuid = load_on(node), node.gpu_uuids()[0]
    free = held_fraction(load)
    node.set_found_cap(uuid, 250.0)
    assert held_fraction(load) > free + 0.1


def test_waiting_for_others_inside_a_pass_is_not_stretched(node: EmulatedNode) -> None:
    assert held_fraction(load_on(node, micro_sequences=1.0), waiting_s=0.5) == pytest.approx(1.0, rel=0.2)


def step_of(load: EmulatedTrainingLoad, *, passes: int) -> None:
    for name in ["forward", "backward"] * passes + ["optimizer"]:
        load.on_instruction(name, "begin")
        load.on_instruction(name, "end")


def test_the_micro_batch_follows_from_the_passes_of_a_step(node: EmulatedNode) -> None:
    load, uuid = load_on(node, micro_sequences=8.0), node.gpu_uuids()[0]
    for _ in range(3):  # an evaluation, which has forward passes only
        load.on_instruction("forward", "begin")
        load.on_instruction("forward", "end")
    step_of(load, passes=4)  # 8 sequences in 4 passes: two each
    load.on_instruction("forward", "begin")
    assert node.gpu_utilisation_fraction(uuid) == pytest.approx(utilisation_fraction(2.0))


def test_the_optimiser_counts_as_full_use(node: EmulatedNode) -> None:
    load, uuid = load_on(node), node.gpu_uuids()[0]
    load.on_instruction("optimizer", "begin")
    assert node.gpu_utilisation_fraction(uuid) == pytest.approx(FULL)


def joules_in_passes_of(node: EmulatedNode, micro_sequences: float) -> float:
    """Over 100 s on the node's clock, in which passes follow each other."""
    load, uuid = load_on(node, micro_sequences=micro_sequences), node.gpu_uuids()[0]
    before_joules = node.gpu_energy_joules(uuid)
    for name in ("forward", "backward"):
        load.on_instruction(name, "begin")
        node.pass_time(50.0)
        load.on_instruction(name, "end")
    load.close()
    return node.gpu_energy_joules(uuid) - before_joules


def test_energy_counters_rise_faster_under_larger_micro_batches(node: EmulatedNode) -> None:
    joules = [joules_in_passes_of(node, micro_sequences) for micro_sequences in (1.0, 2.0, 8.0)]
    assert joules == sorted(joules)
    for found, micro_sequences in zip(joules, (1.0, 2.0, 8.0), strict=True):
        watts = IDLE_WATTS + utilisation_fraction(micro_sequences) * 630.0
        assert found == pytest.approx(100.0 * watts, rel=0.1)


def test_closing_ends_the_draw(node: EmulatedNode) -> None:
    load = load_on(node)
    load.on_instruction("backward", "begin")
    load.on_run_end(None)
    load.on_instruction("backward", "end")
    load.on_instruction("forward", "begin")
    assert node.gpu_draw_watts(node.gpu_uuids()[0]) == IDLE_WATTS, "and nothing opens it again"


def test_a_process_that_exits_in_the_middle_of_a_pass_closes_its_load(node: EmulatedNode) -> None:
    uuid = node.gpu_uuids()[0]
    code = (
        "import sys; from pathlib import Path; "
        "from slurm_power.testing.emulated_training_load import EmulatedTrainingLoad; "
        "from slurm_power.testing.nvml_emulator.emulator import EmulatedNode; "
        f"node = EmulatedNode.open(Path({str(node.state_file)!r})); "
        f"load = EmulatedTrainingLoad(node, {uuid!r}, sequences_per_step=8.0, micro_sequences=4.0); "
        f"load.on_instruction('forward', 'begin'); print(node.gpu_draw_watts({uuid!r})); sys.exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) > IDLE_WATTS
    assert done.stderr == ""
    assert node.gpu_draw_watts(uuid) == IDLE_WATTS, "at once, not when the emulator next looks for dead processes"


def test_a_lost_gpu_costs_one_warning_and_not_the_training(
    node: EmulatedNode, caplog: pytest.LogCaptureFixture
) -> None:
    load = load_on(node)
    load.on_instruction("forward", "begin")
    node.set_fault(node.gpu_uuids()[0], "lost")
    load.on_instruction("forward", "end")
    step_of(load, passes=2)
    load.on_run_end(None)
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert warning.getMessage().startswith("the training draws no emulated power from here on: ")
