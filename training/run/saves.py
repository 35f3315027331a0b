"""When a run saves, and what it says about it. All ranks call the same methods at the same step boundaries."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from training.checkpoint.manifest import Manifest
from training.checkpoint.saver import CheckpointSaver, SaveOutcome, Values
from training.errors import StorageError
from training.run.teller import Teller
from training.run.wishes import Wishes

MARGIN_FRACTION, MARGIN_S = 0.25, 1.0
"""A save in the grace time is begun only if it fits with so much to spare: disks are not even, leaving takes time."""


class Saves:
    def __init__(
        self,
        saver: CheckpointSaver,
        teller: Teller,
        *,
        every_steps: int,
        saved_step: int,
        latest: Path | None,
        values: Callable[[], Values],
        manifest: Callable[[int], Manifest],
    ) -> None:
        """`saved_step`: of `latest`, the checkpoint that the run came from; 0 with a fresh start."""
        self._saver, self._teller, self._every_steps = saver, teller, every_steps
        self._values, self._manifest = values, manifest
        self._due = False
        self._begun_step = saved_step
        self.saved_step, self.latest = saved_step, latest

    def flags(self) -> tuple[int, int]:
        return self._saver.flags()

    def settle(self, wishes: Wishes) -> None:
        """Hear how a save ended."""
        self._heard(self._saver.settle(wishes.save_failed, wishes.save_busy))

    def save_if_due(self, step: int, *, asked: bool) -> None:
        """Begin a save every so many steps, or when asked to. One that comes while another is written waits for it."""
        if asked and step == self.saved_step and self.latest is not None:
            text = f"step {step} is saved already, as {self.latest.name}"
            self._teller.event("checkpoint_skipped", text, step, why="saved already")
            return
        begun_already = step == self._begun_step
        running = self._saver.began_s is not None
        on_time = step % self._every_steps == 0 and not begun_already
        self._due = self._due or on_time or (asked and not (begun_already and running))
        if self._due and not running and step > self.saved_step:
            self._due = False
            self._begun_step = step
            self._heard(self._saver.begin(step, self._values(), self._manifest(step)))

    def finish(self) -> None:
        """Wait for the save that is written now, if there is one."""
        self._heard(self._saver.finish())

    def save_last(self, step: int) -> None:
        """The run's end. Raise StorageError when it cannot be saved."""
        self.finish()
        if step > self.saved_step:
            problem = self._save(step, until_s=None)
            if problem is not None:
                raise StorageError(f"the last checkpoint, of step {step}, cannot be written: {problem}")

    def save_within(self, step: int, *, left_s: float, agree: Callable[[bool], bool]) -> None:
        """Save within the grace time, or leave it: the step that is saved already is then where the run will resume.

        `agree`: whether rank 0 says so; a collective.
        """
        until_s = time.monotonic() + left_s - MARGIN_S
        self._heard(self._saver.finish(until_s=until_s))
        if step <= self.saved_step:
            return
        needed_s = 0.0 if self._saver.last is None else self._saver.last.took_s * (1.0 + MARGIN_FRACTION)
        left_s = until_s - time.monotonic()
        if agree(needed_s >= left_s):
            self._skipped(
                step, f"the last save took {needed_s / (1.0 + MARGIN_FRACTION):.1f} s, {left_s:.1f} s are left"
            )
        else:
            problem = self._save(step, until_s=until_s)
            if problem is not None:
                self._skipped(step, problem)

    def _save(self, step: int, *, until_s: float | None) -> str | None:
        outcome = self._saver.begin(step, self._values(), self._manifest(step)) or self._saver.finish(until_s=until_s)
        assert outcome is not None, "a save that has begun ends"
        self._heard(outcome)
        return outcome.problem

    def _skipped(self, step: int, why: str) -> None:
        again = f"steps {self.saved_step + 1} to {step} will be done again"
        self._teller.event("checkpoint_skipped", f"step {step} is not saved: {why}; {again}", step, why=why)

    def _heard(self, outcome: SaveOutcome | None) -> None:
        if outcome is None:
            return
        if outcome.checkpoint is None:
            latest = "no checkpoint yet" if self.latest is None else f"{self.latest.name} stays the latest"
            text = f"checkpoint of step {outcome.step} failed: {outcome.problem}; {latest}"
            self._teller.event("checkpoint_failed", text, outcome.step, problem=outcome.problem)
            return
        self.saved_step, self.latest = outcome.step, outcome.checkpoint
        text = f"checkpoint {outcome.checkpoint.name} written in {outcome.took_s:.2f} s"
        facts = {"took_s": outcome.took_s, "blocked_s": outcome.blocked_s, "checkpoint": str(outcome.checkpoint)}
        self._teller.event(
            "checkpoint_saved", f"{text}, training stood {outcome.blocked_s:.2f} s", outcome.step, **facts
        )
