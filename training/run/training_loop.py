"""Steps, evaluations, saves and stops, on every rank; rank 0 steers between steps."""

from __future__ import annotations

import time
from dataclasses import replace

from training.checkpoint.agreement import agree_on
from training.checkpoint.engine_state import engine_values
from training.checkpoint.saver import CheckpointSaver
from training.data.batches import evaluation_ids, micro_batches, step_ids
from training.data.dataset import Ids
from training.errors import NumericsError, StorageError
from training.parallel.engine import StepOutcome
from training.run.config import RunConfig
from training.run.control import ControlFile
from training.run.listener import RunResult, StepListener
from training.run.ramp import Ramp, RampLimit
from training.run.records import RecordFiles
from training.run.saves import Saves
from training.run.schedule import learning_rate
from training.run.signals import SignalSource
from training.run.start import Ready
from training.run.steering import Steering
from training.run.teller import AXES, StepFacts, Teller
from training.run.watchdog import Watchdog
from training.run.wishes import Wishes


class TrainingLoop:
    def __init__(
        self,
        ready: Ready,
        listener: StepListener,
        *,
        signals: SignalSource,
        watchdog: Watchdog,
        began_at_unix_s: float,
    ) -> None:
        self._ready, self._config, self._engine = ready, ready.job.config, ready.engine
        self._signals, self._watchdog, self._agreement = signals, watchdog, ready.agreement
        self._leads = ready.agreement.rank == 0
        self._records = RecordFiles(self._config.run.folder)
        self._teller = Teller(self._config, [self._records, listener] if self._leads else [])
        self._saves = self._open_saves()
        self._steering = Steering(
            ControlFile(self._config.run.folder, not_before_unix_s=began_at_unix_s),
            _ramp(self._config),
            self._teller,
            allowed=ready.job.check_micro_batch,
        )
        self._data = {"data_rank": self._engine.context.data.rank, "data_ranks": self._engine.context.data.size}
        self._ids: Ids | None = None
        self._data_problem: str | None = None
        self._pause_s = 0.0
        self._loss: float | None = None

    def run(self) -> RunResult:
        self._begin()
        try:
            while self._ready.step < self._config.optimizer.steps:
                wishes = self._agree()
                self._saves.settle(wishes)
                if wishes.data_failed:
                    raise StorageError(agree_on(self._agreement, self._data_problem) or "text cannot be read")
                if wishes.stop:
                    return self._end(self._stop(wishes))
                if wishes.micro_sequences:
                    self._engine.set_micro_batch(wishes.micro_sequences)
                self._saves.save_if_due(self._ready.step, asked=bool(wishes.checkpoint))
                if wishes.pause_ms:
                    self._pause(wishes.pause_ms / 1000.0)
                else:
                    self._step()
            self._watchdog.progress("saving the last checkpoint")
            self._saves.save_last(self._ready.step)
        except (NumericsError, StorageError):
            self._saves.finish()  # raised on all ranks alike, so what was being written can still be
            raise
        return self._end(self._result(0, "done"))

    def _begin(self) -> None:
        ready = self._ready
        problem = None
        if self._leads:
            try:
                self._records.begin_after_step(ready.step)
            except StorageError as cause:
                problem = str(cause)
        problem = agree_on(self._agreement, problem)
        if problem is not None:
            raise StorageError(problem)
        resumed = ready.step if ready.latest is not None else None
        self._teller.began(
            ready.job.model, ready.job.plan, world_size=self._agreement.world_size, resumed_from_step=resumed
        )
        for kind, text in ready.notes:
            self._teller.event(kind, text, ready.step)
        self._read_ahead()

    def _agree(self) -> Wishes:
        self._watchdog.progress(f"agreeing before step {self._ready.step + 1}")
        wishes = Wishes()
        if self._leads:
            wishes = self._steering.decide(self._ready.step, self._engine.micro_sequences)
        received = self._signals.received()
        failed, busy = self._saves.flags()
        wishes = replace(
            wishes,
            stop=0 if received is None else 1 + int(1000.0 * (time.monotonic() - received.at_s)),
            save_failed=failed,
            save_busy=busy,
            data_failed=int(self._data_problem is not None),
        )
        return Wishes.of(self._agreement.highest(wishes.row()))

    def _read_ahead(self) -> None:
        """The next step's text, before all ranks agree to take the step: one that cannot read it must not be alone."""
        config = self._config
        try:
            self._ids = step_ids(
                self._ready.job.text,
                self._ready.consumed,
                global_sequences=config.batch.global_sequences,
                **self._data,
            )
        except StorageError as cause:
            self._data_problem = str(cause)

    def _pause(self, pause_s: float) -> None:
        self._watchdog.progress("a pause of the ramp")
        time.sleep(pause_s)
        self._pause_s += pause_s

    def _step(self) -> None:
        ready, engine = self._ready, self._engine
        assert self._ids is not None, "read ahead, or data_failed"
        step = ready.step + 1
        self._watchdog.progress(f"step {step}")
        rate = learning_rate(ready.step, self._config.optimizer)
        engine.set_learning_rate(rate)
        began_s = time.monotonic()
        outcome = engine.train_step(micro_batches(self._ids, engine.micro_sequences))
        self._steering.stepped(step, began_s=began_s, ended_s=time.monotonic())
        ready.step, ready.consumed = step, ready.consumed + self._config.batch.global_sequences
        self._loss = outcome.loss
        self._read_ahead()
        self._tell(outcome, rate, self._evaluated(step))

    def _evaluated(self, step: int) -> float | None:
        data = self._config.data
        due = step % data.evaluate_every_steps == 0 or step == self._config.optimizer.steps
        if not (data.evaluates and due):
            return None
        self._watchdog.progress(f"the evaluation after step {step}")
        ids = evaluation_ids(self._ready.job.text, **self._data)
        micro = self._engine.micro_sequences
        return float(self._engine.evaluate(micro_batches(ids, micro), len(ids) // micro))

    def _tell(self, outcome: StepOutcome, rate: float, held_out_loss: float | None) -> None:
        """Collective, on steps that are told."""
        ready, config = self._ready, self._config
        last = ready.step == config.optimizer.steps
        if held_out_loss is None and not last and ready.step % config.run.log_every_steps:
            return
        busy_fractions, bytes_by_axis = self._gathered(outcome)
        facts = StepFacts(
            step=ready.step,
            loss=outcome.loss,
            held_out_loss=held_out_loss,
            learning_rate=rate,
            gradient_norm=outcome.gradient_norm,
            step_s=outcome.step_s,
            pause_s=self._pause_s,
            busy_fraction_by_stage=busy_fractions,
            bytes_by_axis=bytes_by_axis,
            micro_sequences=self._engine.micro_sequences,
            sequences_consumed=ready.consumed,
        )
        self._pause_s = 0.0
        self._teller.stepped(facts)

    def _gathered(self, outcome: StepOutcome) -> tuple[tuple[float, ...], dict[str, float]]:
        """Busy share by pipeline rank, and bytes by axis, over all ranks."""
        plan = self._ready.job.plan
        busy = [0.0] * plan.pipeline
        busy[self._engine.context.pipe.rank] = sum(outcome.busy_s.values()) / outcome.step_s
        sums = self._agreement.total([*busy, *(float(outcome.bytes_by_axis.get(axis, 0)) for axis in AXES)])
        fractions = tuple(total / (plan.data * plan.tensor) for total in sums[: plan.pipeline])
        return fractions, {axis: size for axis, size in zip(AXES, sums[plan.pipeline :], strict=True) if size > 0.0}

    def _stop(self, wishes: Wishes) -> RunResult:
        """Save within the grace time, and say that the job is to be started again."""
        since_s, grace_s = (wishes.stop - 1) / 1000.0, self._config.power.grace_s
        self._watchdog.progress("saving on a power signal")
        received = self._signals.received()
        names = self._agreement.gather(("" if received is None else received.name).encode())
        who = next(f"{name.decode()} on rank {rank}" for rank, name in enumerate(names) if name)
        step = self._ready.step
        text = f"{who}, {since_s:.1f} s ago: saving step {step}, {grace_s - since_s:.1f} s of grace are left"
        self._teller.event("power_signal", text, step, since_s=since_s, grace_s=grace_s)
        self._saves.save_within(step, left_s=grace_s - since_s, agree=self._leader_says)
        return self._result(self._config.power.requeue_exit_code, f"stopped by {who}")

    def _leader_says(self, answer: bool) -> bool:
        return bool(self._agreement.highest([int(answer and self._leads)])[0])

    def _result(self, exit_code: int, reason: str) -> RunResult:
        latest = self._saves.latest
        return RunResult(
            exit_code=exit_code,
            reason=reason,
            step=self._ready.step,
            loss=self._loss,
            checkpoint=None if latest is None else str(latest),
        )

    def _end(self, result: RunResult) -> RunResult:
        self._teller.ended(result)
        return result

    def _open_saves(self) -> Saves:
        table, ready = self._config.checkpoint, self._ready
        saver = CheckpointSaver(
            self._config.checkpoint_folder, self._agreement, keep=table.keep, asynchronous=table.asynchronous
        )
        return Saves(
            saver,
            self._teller,
            every_steps=table.every_steps,
            saved_step=ready.step,
            latest=ready.latest,
            values=lambda: engine_values(self._engine),
            manifest=ready.manifest,
        )


def _ramp(config: RunConfig) -> Ramp | None:
    power = config.power
    if power.ramp_watts_per_s is None or power.idle_watts is None or power.full_watts is None:
        return None
    return Ramp(RampLimit(power.ramp_watts_per_s, power.idle_watts, power.full_watts))
