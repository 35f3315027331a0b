"""Checkpoints: written by some ranks, read by any others; whole or not there at all."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

# ruff: noqa: E402
from tests.training.checkpoint_model import SHAPES, boxes, manifest, values, whole_value
from tests.training.threaded_ranks import run_threads
from training.checkpoint.agreement import Agreement, Alone
from training.checkpoint.boxes import Box
from training.checkpoint.folder import LATEST, clean, complete_names, damage, pointed
from training.checkpoint.load import StoredState, find_checkpoint
from training.checkpoint.saver import CheckpointSaver, SaveOutcome
from training.errors import StorageError

pytestmark = pytest.mark.torch


def save(folder: Path, step: int, *, keep: int = 2, about_to: Callable[[str], None] = lambda what: None) -> SaveOutcome:
    saver = CheckpointSaver(folder, Alone(), keep=keep, asynchronous=False, about_to=about_to)
    outcome = saver.begin(step, values(boxes(), step=step), manifest(step))
    assert outcome is not None
    return outcome


def latest_step(folder: Path) -> int:
    """Of the checkpoint that a start would take; all its values are compared with what was saved."""
    checkpoint, _ = find_checkpoint(folder, Alone())
    assert checkpoint is not None
    state = StoredState(checkpoint)
    step = state.manifest.progress.step
    for name in SHAPES:
        for kind in ("master", "exp_avg", "exp_avg_sq"):
            assert torch.equal(state.whole(name, kind), whole_value(name, kind, step=step))
    return step


def test_what_is_saved_comes_back_bit_by_bit(tmp_path: Path):
    outcome = save(tmp_path, 7)
    assert outcome.checkpoint == tmp_path / "step-00000007"
    assert latest_step(tmp_path) == 7
    progress = StoredState(outcome.checkpoint).manifest.progress
    assert (progress.sequences_consumed, progress.learning_rate) == (56, 1e-3)


def test_safetensors_itself_reads_our_files(tmp_path: Path):
    from safetensors.torch import load_file

    save(tmp_path, 1)
    tensors = load_file(tmp_path / "step-00000001" / "rank-0000.safetensors")
    assert torch.equal(tensors["master/norm.weight"], whole_value("norm.weight", "master", step=1))
    assert tensors["exp_avg/norm.weight"].dtype == torch.bfloat16


WAYS_TO_CUT: dict[str, list[list[Box]]] = {
    "one": [boxes()],
    "two-tensor-ranks": [boxes(tensor_rank=rank, tensor_ranks=2) for rank in range(2)],
    "two-data-ranks": [boxes(), boxes()],
    "two-expert-ranks": [boxes(experts=(rank,)) for rank in range(2)],
    "four-tensor-ranks": [boxes(tensor_rank=rank, tensor_ranks=4) for rank in range(4)],
    "two-by-two": [boxes(tensor_rank=rank % 2, tensor_ranks=2, experts=(rank // 2,)) for rank in range(4)],
}


def each_once(held: list[list[Box]]) -> list[list[Box]]:
    """Replicas share the writing in turns."""
    holders = {box: [rank for rank, mine in enumerate(held) if box in mine] for mine in held for box in mine}
    owners = {box: ranks[turn % len(ranks)] for turn, (box, ranks) in enumerate(holders.items())}
    return [[box for box in mine if owners[box] == rank] for rank, mine in enumerate(held)]


@pytest.mark.parametrize("writers", WAYS_TO_CUT)
@pytest.mark.parametrize("readers", WAYS_TO_CUT)
def test_any_plan_reads_what_any_plan_wrote(tmp_path: Path, writers: str, readers: str):
    held = each_once(WAYS_TO_CUT[writers])

    def write(agreement: Agreement) -> SaveOutcome | None:
        saver = CheckpointSaver(tmp_path, agreement, keep=1)
        assert saver.begin(3, values(held[agreement.rank], step=3), manifest(3)) is None
        return saver.finish()

    outcomes = run_threads(write, len(held))
    assert all(outcome is not None and outcome.problem is None for outcome in outcomes)
    state = StoredState(tmp_path / "step-00000003")
    for mine in WAYS_TO_CUT[readers]:
        for box, value in values(mine, step=3):
            assert torch.equal(state.read(box), value)


# When something breaks


def test_training_goes_on_while_a_save_is_written(tmp_path: Path):
    may_write = threading.Event()
    saver = CheckpointSaver(tmp_path, Alone(), keep=2, about_to=lambda what: may_write.wait(30) and None)
    state = values(boxes(), step=4)
    assert saver.begin(4, state, manifest(4)) is None
    for _, value in state:
        value.zero_()  # the next optimiser step
    assert saver.settle(*saver.flags()) is None
    may_write.set()
    outcome = saver.finish()
    assert outcome is not None
    assert outcome.problem is None
    assert latest_step(tmp_path) == 4


def killed(folder: Path, step: int, at: int) -> None:
    """Save in a process that dies by SIGKILL before its event number `at`."""
    child = os.fork()
    if child == 0:
        count = 0

        def about_to(what: str) -> None:
            nonlocal count
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1

        try:
            save(folder, step, keep=1, about_to=about_to)
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


def events_of_a_save(folder: Path) -> list[str]:
    events: list[str] = []
    save(folder, 1, keep=1)
    save(folder, 2, keep=1, about_to=events.append)
    return events


def test_kill_9_at_any_moment_leaves_a_good_checkpoint(tmp_path: Path):
    events = events_of_a_save(tmp_path / "counted")
    assert {"write", "sync", "rename", "point", "replace", "published", "delete", "delete further"} <= set(events)
    pointer_moves = max(at for at, event in enumerate(events) if event == "replace")
    for at in range(len(events)):
        folder = tmp_path / f"{at}"
        save(folder, 1)
        killed(folder, 2, at)
        assert latest_step(folder) == (1 if at <= pointer_moves else 2)
        clean(folder)
        assert {path.name for path in folder.iterdir()} <= {"latest", "step-00000001", "step-00000002"}
        assert save(folder, 3).problem is None
        assert latest_step(folder) == 3


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", folder], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_costs_a_save_and_nothing_else(small_disk: Path):
    assert save(small_disk, 1).problem is None
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 18 * 1024)
    outcome = save(small_disk, 2)
    assert outcome.checkpoint is None
    assert outcome.problem is not None
    assert outcome.problem.endswith("No space left on device")
    assert "\n" not in outcome.problem
    assert sorted(path.name for path in small_disk.iterdir()) == ["filler", "latest", "step-00000001"]
    assert latest_step(small_disk) == 1
    filler.unlink()
    assert save(small_disk, 3, keep=1).problem is None
    assert latest_step(small_disk) == 3


def test_a_disk_that_fills_at_any_moment_leaves_a_good_checkpoint(tmp_path: Path):
    events = events_of_a_save(tmp_path / "counted")
    for at in range(events.index("published")):
        folder = tmp_path / f"{at}"
        save(folder, 1)
        seen = 0

        def about_to(what: str, at: int = at) -> None:
            nonlocal seen
            seen += 1
            if seen > at:
                raise OSError(28, "No space left on device")

        outcome = save(folder, 2, about_to=about_to)
        assert outcome.problem is not None
        assert latest_step(folder) in (1, 2)
        assert latest_step(folder) == 1 or pointed(folder) == "step-00000002"
        assert not list(folder.glob("*.partial"))


def test_a_file_too_large_costs_a_save_and_nothing_else(tmp_path: Path):
    save(tmp_path, 1)
    found = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, found[1]))
    try:
        outcome = save(tmp_path, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, found)
    assert outcome.problem is not None
    assert outcome.problem.endswith("rank-0000.safetensors: File too large")
    assert latest_step(tmp_path) == 1


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path):
    (tmp_path / "file").write_text("")
    outcome = save(tmp_path / "file", 1)
    assert outcome.problem == f"{tmp_path}/file/step-00000001.partial: Not a directory"


def test_one_rank_that_fails_fails_the_save_on_all(tmp_path: Path):
    def write(agreement: Agreement) -> SaveOutcome | None:
        def about_to(what: str) -> None:
            if agreement.rank == 2:
                raise OSError(28, "No space left on device")

        saver = CheckpointSaver(tmp_path, agreement, keep=1, about_to=about_to)
        saver.begin(1, values(boxes()[agreement.rank :: 3]), manifest(1))
        return saver.finish()

    outcomes = run_threads(write, 3)
    assert {outcome.problem for outcome in outcomes if outcome} == {
        f"rank 2: {tmp_path}/step-00000001.partial/rank-0002.safetensors: No space left on device"
    }
    assert list(tmp_path.iterdir()) == []


def test_a_save_that_is_not_done_in_time_is_given_up(tmp_path: Path):
    save(tmp_path, 1)
    may_write = threading.Event()
    saver = CheckpointSaver(tmp_path, Alone(), keep=2, about_to=lambda what: may_write.wait(30) and None)
    saver.begin(2, values(boxes()), manifest(2))
    outcome = saver.finish(until_s=time.monotonic() + 0.1)
    may_write.set()
    assert outcome is not None
    assert outcome.problem == "not written in time"
    assert latest_step(tmp_path) == 1
    for thread in threading.enumerate():
        if thread.name == "checkpoint":
            thread.join()


def test_an_unforeseen_error_is_raised_and_not_swallowed(tmp_path: Path):
    def about_to(what: str) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        save(tmp_path, 1, about_to=about_to)


# Which one to start from


def test_nothing_saved_means_a_fresh_start(tmp_path: Path):
    assert find_checkpoint(tmp_path / "none", Alone()) == (None, [])


def test_only_so_many_checkpoints_stay(tmp_path: Path):
    for step in range(1, 6):
        save(tmp_path, step, keep=3)
    assert complete_names(tmp_path) == ["step-00000005", "step-00000004", "step-00000003"]


def damage_values(checkpoint: Path) -> None:
    path = checkpoint / "rank-0000.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def cut_off(checkpoint: Path) -> None:
    path = checkpoint / "rank-0000.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def lose(name: str) -> Callable[[Path], None]:
    def lose_file(checkpoint: Path) -> None:
        (checkpoint / name).unlink()

    return lose_file


def garble(name: str) -> Callable[[Path], None]:
    def garble_file(checkpoint: Path) -> None:
        (checkpoint / name).write_bytes(b"\xff{")

    return garble_file


def remove(checkpoint: Path) -> None:
    for path in checkpoint.iterdir():
        path.unlink()
    checkpoint.rmdir()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        pytest.param(damage_values, "rank-0000.safetensors is damaged", id="values"),
        pytest.param(cut_off, "rank-0000.safetensors is cut off", id="cut-off"),
        pytest.param(lose("manifest.json"), "manifest.json cannot be read", id="no-manifest"),
        pytest.param(garble("manifest.json"), "manifest.json cannot be read", id="garbled-manifest"),
        pytest.param(lose("rank-0000.json"), "rank-0000.json: No such file", id="no-index"),
        pytest.param(garble("rank-0000.json"), "rank-0000.json is damaged", id="garbled-index"),
        pytest.param(lose("rank-0000.safetensors"), "rank-0000.safetensors: No such file", id="no-values"),
        pytest.param(remove, "is gone", id="gone"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(tmp_path: Path, harm: Callable[[Path], None], words: str):
    save(tmp_path, 1)
    save(tmp_path, 2)
    harm(tmp_path / "step-00000002")
    found, warnings = find_checkpoint(tmp_path, Alone())
    assert found == tmp_path / "step-00000001"
    assert len(warnings) == 1
    assert words in warnings[0]
    assert warnings[0].startswith(f"checkpoint {tmp_path}/step-00000002: ")
    assert warnings[0].endswith("; falling back")


def test_all_ranks_find_the_damage_that_one_reads(tmp_path: Path):
    def write(agreement: Agreement) -> None:
        for step in (1, 2):
            saver = CheckpointSaver(tmp_path, agreement, keep=2)
            saver.begin(step, values(boxes()[agreement.rank :: 3], step=step), manifest(step))
            saver.finish()

    run_threads(write, 3)
    path = tmp_path / "step-00000002" / "rank-0002.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    found = run_threads(lambda agreement: find_checkpoint(tmp_path, agreement), 3)
    assert {str(checkpoint) for checkpoint, _ in found} == {str(tmp_path / "step-00000001")}
    assert all(len(warnings) == 1 and "rank 2" in warnings[0] for _, warnings in found)


def test_when_all_are_damaged_it_says_so_and_finds_none(tmp_path: Path):
    save(tmp_path, 1)
    cut_off(tmp_path / "step-00000001")
    found, warnings = find_checkpoint(tmp_path, Alone())
    assert found is None
    assert len(warnings) == 1


def test_the_pointer_decides_even_if_a_higher_step_is_there(tmp_path: Path):
    save(tmp_path, 10)
    save(tmp_path, 20)
    (tmp_path / LATEST).write_text("step-00000010\n")
    assert latest_step(tmp_path) == 10
    assert save(tmp_path, 20).checkpoint == tmp_path / "step-00000020-1"
    assert pointed(tmp_path) == "step-00000020-1"
    assert latest_step(tmp_path) == 20


def test_without_a_pointer_the_last_written_is_taken(tmp_path: Path):
    save(tmp_path, 20)
    save(tmp_path, 10)
    (tmp_path / LATEST).unlink()
    assert latest_step(tmp_path) == 10


def test_what_a_crash_left_is_never_read_and_is_cleaned(tmp_path: Path):
    save(tmp_path, 1)
    (tmp_path / "step-00000002.partial").mkdir()
    (tmp_path / "step-00000000.deleting").mkdir()
    (tmp_path / "latest.new").write_text("step-000")
    assert latest_step(tmp_path) == 1
    assert clean(tmp_path) == ["latest.new", "step-00000000.deleting", "step-00000002.partial"]
    assert damage(tmp_path / "step-00000001") is None


def test_what_the_model_needs_and_is_not_stored_is_named(tmp_path: Path):
    save(tmp_path, 1)
    state = StoredState(tmp_path / "step-00000001")
    with pytest.raises(StorageError, match=r"^head\.weight: no master stored$"):
        state.read(Box("head.weight", "master", (2, 2), (0, 0), (2, 2)))


def test_two_of_the_same_values_are_told_apart_by_kind(tmp_path: Path):
    save(tmp_path, 1)
    state: Any = StoredState(tmp_path / "step-00000001")
    assert not torch.equal(state.whole("norm.weight", "exp_avg"), state.whole("norm.weight", "exp_avg_sq"))
