"""Saves checkpoints while training goes on. All ranks call the same methods at the same step boundaries."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.checkpoint.agreement import Agreement, agree_on
from training.checkpoint.boxes import Box
from training.checkpoint.folder import PARTIAL, checkpoint_name, free_attempt
from training.checkpoint.manifest import Manifest
from training.checkpoint.tensor_file import Say, silent
from training.checkpoint.write_part import POLL_S, GivenUp, Save, discard, write_part
from training.errors import StorageError

Values = Iterable[tuple[Box, Any]]
"""What this rank is to write: boxes that no other rank writes, and tensors on any device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveOutcome:
    """How a save ended, the same on all ranks."""

    step: int
    checkpoint: Path | None
    """None: it failed, and `problem` is one line that says why."""

    problem: str | None
    took_s: float
    """From the beginning to the moved pointer."""

    blocked_s: float
    """How long training stood still for it."""


class _Running:
    """A save that has begun on this rank."""

    def __init__(self, save: Save, step: int, began_s: float) -> None:
        self.save, self.step, self.began_s = save, step, began_s
        self.blocked_s = 0.0
        self.ended_s = began_s
        self.error: BaseException | None = None
        self.thread: threading.Thread | None = None

    def write(self, tensors: Sequence[tuple[Box, Any]]) -> None:
        try:
            write_part(self.save, tensors)
        except BaseException as error:  # noqa: BLE001  the end of a thread: `settle` raises what is not StorageError
            self.error = error
        finally:
            self.ended_s = time.monotonic()

    @property
    def busy(self) -> bool:
        return self.thread is not None and self.thread.is_alive()


class CheckpointSaver:
    def __init__(
        self, folder: Path, agreement: Agreement, *, keep: int, asynchronous: bool = True, about_to: Say = silent
    ) -> None:
        self._folder, self._agreement, self._keep, self._asynchronous = folder, agreement, keep, asynchronous
        self._about_to = about_to
        self._running: _Running | None = None
        self._given_up = threading.Event()
        self.last: SaveOutcome | None = None
        """The last save that succeeded."""

    @property
    def began_s(self) -> float | None:
        """When the save that runs began, on the monotonic clock; None when none does."""
        return None if self._running is None else self._running.began_s

    def begin(self, step: int, values: Values, manifest: Manifest) -> SaveOutcome | None:
        """Start a save: copy this rank's part to CPU memory, then write it beside the training.

        An outcome comes at once when the save has ended already: the folder cannot be written, or saves are not
        asynchronous. The save before must have ended.
        """
        assert self._running is None, "the save before must be finished first"
        began_s = time.monotonic()
        attempt, problem = self._open_partial(step)
        if problem is not None:
            return SaveOutcome(step=step, checkpoint=None, problem=problem, took_s=0.0, blocked_s=0.0)
        self._given_up.clear()
        save = Save(
            folder=self._folder,
            name=checkpoint_name(step, attempt),
            rank=self._agreement.rank,
            world_size=self._agreement.world_size,
            keep=self._keep,
            manifest=manifest,
            given_up=self._given_up.is_set,
            about_to=self._about_to,
        )
        self._running = _Running(save, step, began_s)
        tensors = [(box, tensor.detach().to("cpu", copy=True)) for box, tensor in values]
        self._running.thread = threading.Thread(
            target=self._running.write, args=(tensors,), name="checkpoint", daemon=True
        )
        self._running.thread.start()
        self._running.blocked_s = time.monotonic() - began_s
        return None if self._asynchronous else self.finish()

    def flags(self) -> tuple[int, int]:
        """This rank's part of what `settle` wants to know: failed, still writing."""
        if self._running is None:
            return 0, 0
        return int(self._running.error is not None), int(self._running.busy)

    def settle(self, failed: int, busy: int) -> SaveOutcome | None:
        """`failed` and `busy`: the highest `flags` of all ranks. The outcome once the save has ended on all of them."""
        if self._running is None:
            return None
        if failed:
            self._given_up.set()
        return None if busy else self._end(self._running)

    def finish(self, *, until_s: float | None = None) -> SaveOutcome | None:
        """Wait for the save that runs; None when none does.

        At `until_s` (monotonic, rank 0's clock) it counts as failed, and a thread that the disk holds is left behind:
        no other save may follow.
        """
        if self._running is None:
            return None
        waiting_since_s = time.monotonic()
        while True:
            late = until_s is not None and self._agreement.rank == 0 and time.monotonic() >= until_s
            failed, busy, too_late = self._agreement.highest([*self.flags(), int(late)])
            self._running.blocked_s += time.monotonic() - waiting_since_s
            waiting_since_s = time.monotonic()
            outcome = self.settle(failed, busy)
            if outcome is not None:
                return outcome
            if too_late:
                self._given_up.set()
                return self._outcome(self._running, "not written in time")
            time.sleep(POLL_S)

    def _open_partial(self, step: int) -> tuple[int, str | None]:
        attempt, problem = 0, None
        if self._agreement.rank == 0:
            attempt = free_attempt(self._folder, step)
        attempt = self._agreement.highest([attempt])[0]
        partial = self._folder / f"{checkpoint_name(step, attempt)}{PARTIAL}"
        try:
            partial.mkdir(parents=True, exist_ok=True)
        except OSError as cause:
            problem = f"{partial}: {cause.strerror}"
        return attempt, agree_on(self._agreement, problem)

    def _end(self, running: _Running) -> SaveOutcome:
        error = running.error
        if error is not None and not isinstance(error, StorageError):
            raise error
        own = None if error is None or isinstance(error, GivenUp) else str(error)
        problem = agree_on(self._agreement, own)
        if problem is not None and self._agreement.rank == 0:
            discard(running.save)
        return self._outcome(running, problem)

    def _outcome(self, running: _Running, problem: str | None) -> SaveOutcome:
        self._running = None
        outcome = SaveOutcome(
            step=running.step,
            checkpoint=None if problem is not None else self._folder / running.save.name,
            problem=problem,
            took_s=running.ended_s - running.began_s,
            blocked_s=running.blocked_s,
        )
        if problem is None:
            self.last = outcome
        return outcome
