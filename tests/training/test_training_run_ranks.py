"""Whole runs on real ranks: other plans after a restart, signals, steering, and ranks that die, hang or go wrong."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("deepspeed")

# ruff: noqa: E402
from tests.training.rank_functions_run import Act, train, write_model
from tests.training.rank_processes import rank_processes
from tests.training.run_configs import make_dataset
from training.checkpoint.agreement import Alone
from training.checkpoint.load import StoredState, find_checkpoint
from training.run.records import read_events, read_steps

pytestmark = pytest.mark.torch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_dataset(tmp_path)
    return tmp_path


@pytest.fixture
def little(folder: Path) -> dict[str, Any]:
    return write_model(folder)


def plan(pipeline: int = 1, tensor: int = 1, data: int = 1, expert: int = 1) -> dict[str, Any]:
    sizes = {"pipeline": pipeline, "tensor": tensor, "data": data, "expert": expert}
    return {f"parallel__{key}": size for key, size in sizes.items()}


def run(
    folder: Path, settings: dict[str, Any], act: Act | None = None, *, world_size: int
) -> tuple[list[int | None], list[list[str]]]:
    """Exit codes and last words by rank."""
    with rank_processes(folder, train, world_size, folder, settings, act) as ranks:
        codes = ranks.exit_codes()
        return codes, [ranks.said(rank) for rank in range(world_size)]


def losses(folder: Path, name: str = "run") -> list[float]:
    return [record.loss for record in read_steps(folder / name)]


def undisturbed(folder: Path, settings: dict[str, Any]) -> list[float]:
    other = {**settings, **plan(), "run__folder": str(folder / "undisturbed")}
    codes, said = run(folder, other, world_size=1)
    assert codes == [0], said
    return losses(folder, "undisturbed")


def kinds(folder: Path) -> list[str]:
    return [event.kind for event in read_events(folder / "run")]


def saved_step(folder: Path) -> int:
    checkpoint, warnings = find_checkpoint(folder / "run" / "checkpoints", Alone())
    assert checkpoint is not None
    assert warnings == []
    return StoredState(checkpoint).manifest.progress.step


def test_a_run_stopped_on_one_rank_goes_on_with_other_plans_to_the_same_losses(folder: Path, little: dict[str, Any]):
    expected = undisturbed(folder, little)
    stop = {"what": "signal", "rank": 1, "value": signal.SIGUSR1}
    codes, said = run(folder, {**little, **plan(pipeline=2)}, Act(step=4, **stop), world_size=2)  # type: ignore[arg-type]
    assert codes == [75, 75], said
    assert losses(folder) == expected[:4]
    terminate = {**stop, "value": signal.SIGTERM}
    codes, said = run(folder, {**little, **plan(data=2)}, Act(step=3, **terminate), world_size=2)  # type: ignore[arg-type]
    assert codes == [75, 75], said
    codes, said = run(folder, {**little, **plan(tensor=2, pipeline=2)}, world_size=4)
    assert codes == [0] * 4, said
    assert [record.step for record in read_steps(folder / "run")] == list(range(1, 11))
    assert losses(folder) == pytest.approx(expected, abs=2e-3)
    assert kinds(folder).count("power_signal") == 2


def test_experts_router_biases_and_predictions_ahead_survive_another_plan(folder: Path):
    settings = {"precision__policy": "fp8", "data__sequence_length": 64, "batch__micro_sequences": 2}
    # An odd number of steps of one size, up or down, never ends where it began.
    settings |= {"optimizer__steps": 5, "optimizer__router_bias_speed": 0.05}
    expected = undisturbed(folder, settings)
    act = Act("signal", rank=0, step=3, value=signal.SIGUSR1)
    codes, said = run(folder, {**settings, **plan(data=2, expert=2)}, act, world_size=2)
    assert codes == [75, 75], said
    codes, said = run(folder, {**settings, **plan(pipeline=2)}, world_size=2)
    assert codes == [0, 0], said
    assert losses(folder) == pytest.approx(expected, abs=2e-3)
    checkpoint, _ = find_checkpoint(folder / "run" / "checkpoints", Alone())
    assert checkpoint is not None
    state = StoredState(checkpoint)
    biases = [state.whole(name, "buffer") for name in state.shapes("buffer")]
    assert len(biases) == 3
    assert all(bias.abs().max() > 0 for bias in biases)


def test_the_micro_batch_changes_on_real_ranks_and_the_loss_stays(folder: Path, little: dict[str, Any]):
    expected = undisturbed(folder, little)
    settings = {**little, **plan(pipeline=2)}
    codes, said = run(folder, settings, Act("micro", rank=0, step=4, value=2), world_size=2)
    assert codes == [0, 0], said
    records = read_steps(folder / "run")
    assert [record.micro_sequences for record in records] == [4] * 4 + [2] * 6
    assert losses(folder) == pytest.approx(expected, abs=1e-3)  # BF16 weight gradients of fewer rows round otherwise
    assert "micro_batch_changed" in kinds(folder)


def test_kill_9_of_a_rank_ends_the_others_with_6_and_one_line(folder: Path, little: dict[str, Any]):
    settings = {**little, **plan(pipeline=2, data=2), "checkpoint__every_steps": 2, "run__watchdog_s": 60.0}
    codes, said = run(folder, settings, Act("kill", rank=3, step=6), world_size=4)
    assert codes == [6, 6, 6, -signal.SIGKILL], said
    for lines in said[:3]:
        assert len([line for line in lines if "a peer is gone" in line]) == 1, lines
        assert not any("Traceback" in line for line in lines), lines
    assert saved_step(folder) >= 2
    codes, said = run(folder, settings, world_size=4)
    assert codes == [0] * 4, said
    assert [record.step for record in read_steps(folder / "run")] == list(range(1, 11))


def test_a_rank_that_hangs_is_ended_by_its_watchdog_and_so_are_the_others(folder: Path, little: dict[str, Any]):
    settings = {**little, **plan(data=2), "run__watchdog_s": 20.0}
    codes, said = run(folder, settings, Act("hang", rank=1, step=5), world_size=2)
    assert codes == [6, 6], said
    assert any("rank 1: no progress for 20 s in step 5: a peer is gone or hangs" in line for line in said[1]), said


def test_a_nan_in_one_gradient_ends_all_ranks_with_5_and_one_line(folder: Path, little: dict[str, Any]):
    settings = {**little, **plan(data=2), "checkpoint__every_steps": 2}
    codes, said = run(folder, settings, Act("poison", rank=1, step=6), world_size=2)
    assert codes == [5, 5], said
    (line,) = [line for line in said[0] if "not finite" in line]
    assert line.startswith("step 6: ")
    assert "rank 1: gradient is not finite" in line
    assert saved_step(folder) == 4
    assert [record.step for record in read_steps(folder / "run")] == list(range(1, 6))


def test_weights_of_a_folder_are_where_training_starts(folder: Path, little: dict[str, Any]):
    from training.model.config import ModelConfig
    from training.model.hf_folder import save_hf
    from training.precision import FP32

    codes, said = run(folder, {**little, **plan(data=2), "optimizer__steps": 8}, world_size=2)
    assert codes == [0, 0], said
    checkpoint, _ = find_checkpoint(folder / "run" / "checkpoints", Alone())
    assert checkpoint is not None
    state = StoredState(checkpoint)
    weights = {name: state.whole(name, "master") for name in state.shapes("master")}
    save_hf(folder / "trained", ModelConfig.from_hf(state.manifest.model), weights, FP32)
    settings = {**little, "model__folder": str(folder / "trained"), "model__from_scratch": False}
    settings |= {"run__folder": str(folder / "further"), **plan(pipeline=2)}
    codes, said = run(folder, settings, world_size=2)
    assert codes == [0, 0], said
    assert losses(folder, "further")[0] < losses(folder)[0] - 0.5


def test_another_model_than_the_checkpoints_is_refused_in_one_line(folder: Path, little: dict[str, Any]):
    codes, said = run(folder, {**little, "optimizer__steps": 4}, world_size=1)
    assert codes == [0], said
    config = folder / "model" / "config.json"
    config.write_text(config.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))
    codes, said = run(folder, little, world_size=1)
    assert codes == [3]
    (line,) = [line for line in said[0] if line.startswith("model: ")]
    assert line.startswith("model: num_hidden_layers = 3, checkpoint ")
    assert line.endswith("step-00000004 has 2")
