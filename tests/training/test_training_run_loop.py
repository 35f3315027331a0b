"""The step loop around an engine that is simple and exact: saves, signals, steering, the ramp, and what goes wrong."""

from __future__ import annotations

import logging
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("deepspeed")

# ruff: noqa: E402
from tests.training.fake_engine import FakeEngine
from tests.training.rank_functions_run import train
from tests.training.rank_processes import rank_processes
from tests.training.run_configs import make_dataset, run_config
from tests.training.threaded_ranks import run_threads
from training.checkpoint.agreement import Agreement, Alone
from training.checkpoint.load import StoredState, find_checkpoint
from training.errors import NumericsError, StorageError
from training.run.config import RunConfig
from training.run.control import ControlRequest, write_control
from training.run.job import check_job
from training.run.listener import EVENT_KINDS, NullListener, RunEvent, RunFacts, RunResult, StepRecord
from training.run.records import read_events, read_steps
from training.run.signals import Received
from training.run.start import Ready, load
from training.run.training_loop import TrainingLoop
from training.run.watchdog import Watchdog

pytestmark = pytest.mark.torch


@dataclass
class Seen(NullListener):
    facts: list[RunFacts] = field(default_factory=list)
    steps: list[StepRecord] = field(default_factory=list)
    events: list[RunEvent] = field(default_factory=list)
    results: list[RunResult] = field(default_factory=list)

    def on_run_begin(self, facts: RunFacts) -> None:
        self.facts.append(facts)

    def on_step(self, record: StepRecord) -> None:
        self.steps.append(record)

    def on_event(self, event: RunEvent) -> None:
        assert event.kind in EVENT_KINDS
        self.events.append(event)

    def on_run_end(self, result: RunResult) -> None:
        self.results.append(result)

    def texts(self, kind: str) -> list[str]:
        return [event.text for event in self.events if event.kind == kind]


class SignalAt:
    """Comes while step `step` is made."""

    def __init__(self, step: int | None = None, *, ago_s: float = 0.0) -> None:
        self._step, self._ago_s = step, ago_s
        self._received: Received | None = None

    def before_step(self, step: int) -> None:
        if step == self._step:
            self._received = Received("SIGUSR1", time.monotonic() - self._ago_s)

    def received(self) -> Received | None:
        return self._received


@dataclass
class Run:
    """One start of a run, on one rank."""

    config: RunConfig
    agreement: Agreement = field(default_factory=Alone)
    signal: SignalAt = field(default_factory=SignalAt)
    before_step: Callable[[int], None] = lambda step: None
    seen: Seen = field(default_factory=Seen)
    poisoned_step: int | None = None
    fresh: bool = False
    engine: FakeEngine | None = None

    def go(self) -> RunResult:
        job = check_job(self.config, self.agreement.world_size)
        self.engine = engine = FakeEngine(job.plan, self.agreement, self._before)
        engine.poisoned_step = self.poisoned_step
        found = (None, []) if self.fresh else find_checkpoint(self.config.checkpoint_folder, self.agreement)
        notes = [("checkpoint_fallback", warning) for warning in found[1]]
        ready = Ready(job, engine, self.agreement, step=0, consumed=0, latest=found[0], notes=notes)
        load(ready)
        with Watchdog(120.0, rank=self.agreement.rank, say=print) as watchdog:
            loop = TrainingLoop(
                ready, self.seen, signals=self.signal, watchdog=watchdog, began_at_unix_s=time.time() - 1.0
            )
            return loop.run()

    def _before(self, step: int) -> None:
        self.signal.before_step(step)
        self.before_step(step)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_dataset(tmp_path)
    return tmp_path


def losses(folder: Path) -> list[float]:
    return [record.loss for record in read_steps(folder / "run")]


@pytest.fixture
def undisturbed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """Losses of the run that nothing happens to."""
    other = tmp_path_factory.mktemp("undisturbed")
    shutil.copytree(folder / "data", other / "data")
    Run(run_config(other)).go()
    return losses(other)


def test_a_run_ends_with_all_its_steps_told_and_saved(folder: Path):
    run = Run(run_config(folder))
    result = run.go()
    assert (result.exit_code, result.reason, result.step) == (0, "done", 10)
    assert result.checkpoint == str(folder / "run" / "checkpoints" / "step-00000010")
    assert [record.step for record in run.seen.steps] == list(range(1, 11))
    assert read_steps(folder / "run") == run.seen.steps
    assert read_events(folder / "run") == run.seen.events
    assert [event.step for event in run.seen.events if event.kind == "checkpoint_saved"] == [4, 8, 10]
    assert run.seen.results == [result]
    assert result.loss == run.seen.steps[-1].loss < run.seen.steps[0].loss


def test_a_record_holds_what_was_measured(folder: Path):
    run = Run(run_config(folder, run__peak_flops_per_s=1e12))
    run.go()
    facts, record = run.seen.facts[0], run.seen.steps[4]
    assert record.tokens == 8 * 32
    assert record.tokens_per_s == 8 * 32 / 0.25
    assert record.busy_fraction_by_stage == (pytest.approx(0.6),)
    assert record.bytes_by_axis == {"data": 2048.0}
    assert record.sequences_consumed == 40
    assert facts.flops_per_token is not None
    assert record.model_flops_utilisation == pytest.approx(facts.flops_per_token * 8 * 32 / 0.25 / 1e12)
    assert facts.plan["micro_batches"] == 2


def test_without_a_stated_peak_utilisation_is_unknown(folder: Path):
    run = Run(run_config(folder))
    run.go()
    assert run.seen.facts[0].peak_flops_per_s is None
    assert run.seen.steps[0].model_flops_utilisation is None


def test_held_out_text_is_looked_at_every_so_many_steps_and_at_the_end(folder: Path):
    run = Run(run_config(folder, optimizer__steps=12))
    run.go()
    assert [record.step for record in run.seen.steps if record.held_out_loss is not None] == [5, 10, 12]


def test_steps_are_told_as_often_as_asked(folder: Path):
    run = Run(run_config(folder, run__log_every_steps=4))
    run.go()
    assert [record.step for record in run.seen.steps] == [4, 5, 8, 10]  # 5 and 10: evaluated


def test_data_ranks_and_micro_batches_change_no_loss(folder: Path, undisturbed: list[float]):
    for world_size, micro in ((2, 2), (4, 1), (1, 8)):
        shutil.rmtree(folder / "run", ignore_errors=True)
        config = run_config(folder, batch__micro_sequences=micro)
        run_threads(lambda agreement, config=config: Run(config, agreement).go(), world_size)
        assert losses(folder) == undisturbed


def test_training_goes_on_while_a_checkpoint_is_written(folder: Path, undisturbed: list[float]):
    run = Run(run_config(folder, checkpoint__asynchronous=True))
    assert run.go().exit_code == 0
    assert {4, 10} <= {event.step for event in run.seen.events if event.kind == "checkpoint_saved"}
    assert losses(folder) == undisturbed


# Power signals and resuming


def test_a_power_signal_saves_and_asks_to_be_started_again(folder: Path, undisturbed: list[float]):
    run = Run(run_config(folder), signal=SignalAt(6))
    result = run.go()
    assert (result.exit_code, result.reason, result.step) == (75, "stopped by SIGUSR1 on rank 0", 6)
    assert result.checkpoint == str(folder / "run" / "checkpoints" / "step-00000006")
    assert run.seen.texts("power_signal")[0].startswith("SIGUSR1 on rank 0, 0.0 s ago: saving step 6, 30.0 s of grace")
    resumed = Run(run_config(folder))
    assert resumed.go().exit_code == 0
    assert resumed.seen.texts("resumed") == ["going on from step-00000006"]
    assert resumed.seen.facts[0].resumed_from_step == 6
    assert losses(folder) == undisturbed


def test_a_signal_on_one_rank_stops_all_at_the_same_step(folder: Path, undisturbed: list[float]):
    config = run_config(folder, batch__micro_sequences=1)
    results = run_threads(
        lambda agreement: Run(config, agreement, signal=SignalAt(5 if agreement.rank == 2 else None)).go(), 4
    )
    assert {(result.exit_code, result.step, result.reason) for result in results} == {
        (75, 5, "stopped by SIGUSR1 on rank 2")
    }
    run_threads(lambda agreement: Run(config, agreement).go(), 2)  # and goes on with another number of ranks
    assert losses(folder) == undisturbed


def test_steps_of_a_lost_attempt_are_dropped_from_the_curve(folder: Path, undisturbed: list[float]):
    def die(step: int) -> None:
        if step == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Run(run_config(folder), before_step=die).go()
    assert len(read_steps(folder / "run")) == 7
    resumed = Run(run_config(folder))
    resumed.go()
    assert resumed.seen.facts[0].resumed_from_step == 4
    assert [record.step for record in read_steps(folder / "run")] == list(range(1, 11))
    assert losses(folder) == undisturbed


def test_a_signal_before_the_first_step_saves_nothing(folder: Path):
    signal = SignalAt(0)
    signal.before_step(0)
    result = Run(run_config(folder), signal=signal).go()
    assert (result.exit_code, result.step, result.checkpoint) == (75, 0, None)


def test_a_step_that_is_saved_already_is_not_saved_again(folder: Path):
    Run(run_config(folder), signal=SignalAt(6)).go()
    signal = SignalAt(0)
    signal.before_step(0)
    run = Run(run_config(folder), signal=signal)
    assert run.go().step == 6
    assert run.seen.texts("checkpoint_saved") == []


def test_without_time_to_save_the_old_checkpoint_stays(folder: Path):
    run = Run(run_config(folder), signal=SignalAt(6, ago_s=29.5))
    result = run.go()
    assert (result.exit_code, result.step) == (75, 6)
    assert result.checkpoint == str(folder / "run" / "checkpoints" / "step-00000004")
    (text,) = run.seen.texts("checkpoint_skipped")
    assert text.startswith("step 6 is not saved: the last save took ")
    assert text.endswith("steps 5 to 6 will be done again")


def test_a_fresh_start_passes_over_checkpoints(folder: Path, undisturbed: list[float]):
    Run(run_config(folder), signal=SignalAt(6)).go()
    run = Run(run_config(folder), fresh=True)
    run.go()
    assert run.seen.facts[0].resumed_from_step is None
    assert losses(folder) == undisturbed


def test_a_damaged_checkpoint_is_passed_over_with_one_event(folder: Path, undisturbed: list[float]):
    Run(run_config(folder), signal=SignalAt(6)).go()
    path = folder / "run" / "checkpoints" / "step-00000006" / "rank-0000.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    run = Run(run_config(folder))
    run.go()
    (text,) = run.seen.texts("checkpoint_fallback")
    assert text.endswith("step-00000006: rank-0000.safetensors is cut off; falling back")
    assert run.seen.facts[0].resumed_from_step == 4
    assert losses(folder) == undisturbed


def test_another_seed_is_said(folder: Path):
    Run(run_config(folder), signal=SignalAt(6)).go()
    run = Run(run_config(folder, run__seed=7))
    run.go()
    assert "seed = 7, the checkpoint has 0: text comes in another order from here on" in run.seen.texts("resumed")


# Steering


def ask(folder: Path, **wishes: object) -> None:
    write_control(folder / "run", ControlRequest(asked_at_unix_s=time.time(), **wishes))  # type: ignore[arg-type]


def at_step(wanted: int, act: Callable[[], None]) -> Callable[[int], None]:
    def before_step(step: int) -> None:
        if step == wanted:
            act()

    return before_step


def test_the_micro_batch_changes_while_the_loss_curve_stays(folder: Path, undisturbed: list[float]):
    run = Run(run_config(folder), before_step=at_step(4, lambda: ask(folder, micro_sequences=2)))
    run.go()
    assert run.engine is not None
    assert run.engine.taken == [2] * 4 + [4] * 6
    assert [record.micro_sequences for record in run.seen.steps] == [4] * 4 + [2] * 6
    assert losses(folder) == undisturbed
    (event,) = [event for event in run.seen.events if event.kind == "micro_batch_changed"]
    assert event.step == 5
    assert event.text.startswith("micro-batch 4 -> 2: first whole step ")
    assert (event.facts["micro_sequences_before"], event.facts["micro_sequences_after"]) == (4, 2)
    assert 0.0 < event.facts["effect_s"] < 60.0
    assert event.facts["step_s_before"] > 0.0
    assert event.facts["step_s_after"] > 0.0


def test_all_ranks_change_the_micro_batch_at_the_same_step(folder: Path, undisturbed: list[float]):
    config = run_config(folder, batch__micro_sequences=1)

    def train(agreement: Agreement) -> list[int]:
        act = at_step(3, lambda: ask(folder, micro_sequences=2) if agreement.rank == 0 else None)
        run = Run(config, agreement, before_step=act)
        run.go()
        assert run.engine is not None
        return run.engine.taken

    assert run_threads(train, 4) == [[2] * 3 + [1] * 7] * 4
    assert losses(folder) == undisturbed


@pytest.mark.parametrize(
    ("micro", "line"),
    [
        (3, "micro-batch stays 4: micro_sequences = 3: must divide 8, the sequences of one data rank"),
        (0, "micro-batch stays 4: micro_sequences = 0: must divide 8, the sequences of one data rank"),
        (4, "micro-batch is 4 already"),
    ],
)
def test_a_micro_batch_that_cannot_be_is_refused(folder: Path, micro: int, line: str):
    run = Run(run_config(folder), before_step=at_step(2, lambda: ask(folder, micro_sequences=micro)))
    run.go()
    assert run.seen.texts("micro_batch_refused") == [line]
    assert {record.micro_sequences for record in run.seen.steps} == {4}


def test_fp8_refuses_a_micro_batch_that_cuts_a_tile(folder: Path):
    config = run_config(folder, precision__policy="fp8")
    run = Run(config, before_step=at_step(2, lambda: ask(folder, micro_sequences=2)))
    run.go()
    (text,) = run.seen.texts("micro_batch_refused")
    assert "must be a multiple of 128 with FP8" in text


def test_a_checkpoint_is_made_when_asked(folder: Path):
    run = Run(run_config(folder), before_step=at_step(6, lambda: ask(folder, checkpoint_now=True)))
    run.go()
    assert [event.step for event in run.seen.events if event.kind == "checkpoint_saved"] == [4, 6, 8, 10]


def test_garbage_in_the_control_file_is_one_event(folder: Path):
    def garbage() -> None:
        path = folder / "run" / "control.json"
        path.write_text("{")
        path.chmod(0o600)

    run = Run(run_config(folder), before_step=at_step(2, garbage))
    assert run.go().exit_code == 0
    assert len(run.seen.texts("control_ignored")) == 1


# The ramp

RAMP = {"power__idle_watts": 100.0, "power__full_watts": 1100.0}


def test_steps_are_held_back_until_the_ramp_has_ended(folder: Path, undisturbed: list[float]):
    def work(step: int) -> None:
        time.sleep(0.01)

    run = Run(run_config(folder, power__ramp_watts_per_s=10_000.0, **RAMP), before_step=work)
    run.go()
    assert run.seen.steps[1].pause_s > 0.0
    assert run.seen.steps[1].tokens_per_s < run.seen.steps[1].tokens / run.seen.steps[1].step_s
    assert losses(folder) == undisturbed
    assert len(run.seen.texts("ramp_ended")) <= 1


def test_a_signal_is_heard_during_a_pause(folder: Path):
    """The first step alone would be paid for by half an hour's pause."""
    signal = SignalAt(1)
    run = Run(
        run_config(folder, power__ramp_watts_per_s=1e-5, **RAMP),
        signal=signal,
        before_step=lambda step: time.sleep(0.02),
    )
    result = run.go()
    assert (result.exit_code, result.step) == (75, 1)


def test_a_held_ramp_waits_for_its_release(folder: Path):
    config = run_config(folder, power__ramp_watts_per_s=1000.0, optimizer__steps=2, **RAMP)
    run = Run(config, before_step=at_step(1, lambda: ask(folder, ramp_held=True)))
    thread = threading.Thread(target=run.go)
    thread.start()
    while not run.seen.texts("ramp_held"):
        time.sleep(0.01)
    ask(folder, ramp_held=False)
    thread.join(60)
    assert [event.kind for event in run.seen.events if event.kind.startswith("ramp")][:2] == [
        "ramp_held",
        "ramp_released",
    ]
    assert run.seen.results[0].exit_code == 0


# What goes wrong


def test_a_value_that_is_not_finite_ends_the_run_and_the_save_under_way_is_finished(folder: Path):
    run = Run(run_config(folder, checkpoint__asynchronous=True), poisoned_step=5)
    with pytest.raises(NumericsError, match="step 5: gradient is not finite on rank 0"):
        run.go()
    checkpoint, warnings = find_checkpoint(folder / "run" / "checkpoints", Alone())
    assert checkpoint is not None
    assert StoredState(checkpoint).manifest.progress.step == 4
    assert warnings == []


def damage_text(folder: Path) -> None:
    """In place: a file cut short under a memory map would end the process."""
    np.memmap(folder / "data" / "tokens.bin", dtype="<u2", mode="r+")[:] = 60000


def test_text_that_is_damaged_meanwhile_ends_the_run_on_all_ranks(folder: Path):
    config = run_config(folder, batch__micro_sequences=2)

    def train(agreement: Agreement) -> str:
        act = at_step(6, lambda: damage_text(folder) if agreement.rank == 1 else None)
        with pytest.raises(StorageError) as raised:
            Run(config, agreement, before_step=act).go()
        return str(raised.value)

    texts = run_threads(train, 2)
    assert texts[0] == texts[1]
    assert "beyond the vocabulary of 257: damaged, prepare it again" in texts[0]
    assert find_checkpoint(folder / "run" / "checkpoints", Alone())[0] is not None


class Broken(NullListener):
    calls = 0

    def on_step(self, record: StepRecord) -> None:
        self.calls += 1
        raise RuntimeError("no plot today")


def test_a_failing_listener_is_dropped_and_the_run_goes_on(folder: Path, caplog: pytest.LogCaptureFixture):
    run = Run(run_config(folder))
    broken = Broken()
    run.seen = broken  # type: ignore[assignment]
    with caplog.at_level(logging.WARNING):
        assert run.go().exit_code == 0
    assert broken.calls == 1
    assert [record.message for record in caplog.records] == [
        "listener Broken failed and is dropped: RuntimeError('no plot today')"
    ]
    assert len(read_steps(folder / "run")) == 10


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mount = tmp_path / "small"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", mount], capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    try:
        yield mount
    finally:
        subprocess.run(["umount", mount], check=True)


def test_a_full_disk_costs_saves_and_training_goes_on(folder: Path, small_disk: Path, undisturbed: list[float]):
    config = run_config(folder, checkpoint__folder=str(small_disk / "checkpoints"), checkpoint__keep=1)
    filler = small_disk / "filler"

    def fill(step: int) -> None:
        if step == 6:
            filler.write_bytes(b"x" * 44 * 1024)
        if step == 10:
            filler.unlink()

    run = Run(config, before_step=fill)
    assert run.go().exit_code == 0
    (text,) = run.seen.texts("checkpoint_failed")
    assert text.startswith("checkpoint of step 8 failed: ")
    assert text.endswith("No space left on device; step-00000004 stays the latest")
    assert [event.step for event in run.seen.events if event.kind == "checkpoint_saved"] == [4, 10]
    assert losses(folder) == undisturbed


def test_a_last_checkpoint_that_cannot_be_written_is_an_error(folder: Path, small_disk: Path):
    config = run_config(folder, checkpoint__folder=str(small_disk / "checkpoints"), checkpoint__every_steps=100)
    run = Run(config, before_step=at_step(10, lambda: (small_disk / "filler").write_bytes(b"x" * 60 * 1024) and None))
    with pytest.raises(StorageError, match=r"the last checkpoint, of step 10, cannot be written: .*No space left"):
        run.go()


def test_a_full_disk_delays_the_records_and_loses_none(folder: Path, small_disk: Path, undisturbed: list[float]):
    config = run_config(
        folder, run__folder=str(small_disk / "run"), checkpoint__folder=str(folder / "elsewhere"), optimizer__steps=10
    )
    filler = small_disk / "filler"

    def fill(step: int) -> None:
        if step == 3:
            with pytest.raises(OSError, match="No space"), filler.open("wb") as file:
                file.write(b"x" * 64 * 1024)
        if step == 9:
            filler.unlink()

    Run(config, before_step=fill).go()
    assert [record.loss for record in read_steps(small_disk / "run")] == undisturbed


# Before anything starts


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"batch__global_sequences": 4000}, "one batch needs 4000"),
        ({"data__sequence_length": 4096}, "data.sequence_length = 4096: the model was made for at most 2048"),
        ({"model__preset": "huge"}, "model.preset = huge: must be one of tiny-v3"),
        ({"parallel__pipeline": 3}, "[parallel] pipeline x tensor = 3: there are 1 ranks"),
        ({"data__dataset": "/nowhere"}, "dataset = /nowhere: no dataset.json there"),
        ({"data__held_out_fraction": 0.001}, "data.held_out_fraction = "),
        ({"run__folder": "/proc/nowhere"}, "run.folder = /proc/nowhere: No such file or directory"),
    ],
)
def test_a_config_that_cannot_be_is_one_line_and_exit_code_3(folder: Path, changes: dict[str, object], line: str):
    codes, said = refused(folder, changes)
    assert codes == [3]
    assert len([each for each in said if line in each]) == 1, said
    assert not any("Traceback" in each for each in said)


def refused(folder: Path, changes: dict[str, object]) -> tuple[list[int | None], list[str]]:
    with rank_processes(folder, train, 1, folder, changes) as ranks:
        return ranks.exit_codes(), ranks.said(0)
