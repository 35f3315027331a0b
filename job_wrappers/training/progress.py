"""A run as one moving line on a terminal, or as plain lines now and then in a file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from job_wrappers.training.energy import Window
from training.run.listener import NullListener, RunEvent, RunFacts, RunResult, StepRecord


class ProgressListener(NullListener):
    """`every_steps`: of the plain lines; the first and the last step of a run are always shown."""

    def __init__(
        self, *, used_joules: Callable[[], float | None], every_steps: int, stream: TextIO | None = None
    ) -> None:
        self._used_joules, self._every_steps = used_joules, every_steps
        self._stream = stream if stream is not None else sys.stdout
        self._window = Window()
        self._steps = 0
        self._seen = False
        self._line = ""
        self._bar: Progress | None = None

    def on_run_begin(self, facts: RunFacts) -> None:
        self._steps = facts.steps
        plan = " x ".join(f"{name} {facts.plan[name]}" for name in ("pipeline", "tensor", "data", "expert"))
        self._print(
            f"{facts.model_family} of {facts.parameters / 1e6:.1f} M parameters, {facts.policy}, {plan} on "
            f"{facts.world_size} ranks, {facts.global_sequences} x {facts.sequence_length_tokens} tokens a step"
        )
        if self._stream.isatty():
            self._bar = Progress(
                BarColumn(bar_width=12),
                MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=11)),
                TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=7)),
                TextColumn("{task.description}", table_column=Column(overflow="ellipsis", no_wrap=True, ratio=1)),
                expand=True,
                console=Console(file=self._stream),
            )
            self._bar.add_task("", total=facts.steps, completed=facts.resumed_from_step or 0)
            self._bar.start()

    def on_step(self, record: StepRecord) -> None:
        joules_per_token, watts = self._window.add(record.ended_at_unix_s, self._used_joules(), record.tokens)
        self._line = step_line(record, steps=self._steps, joules_per_token=joules_per_token, watts=watts)
        if self._bar is not None:
            task = self._bar.task_ids[0]
            self._bar.update(task, completed=record.step, description=self._line.partition("  ")[2])
        elif not self._seen or record.step % self._every_steps == 0 or record.step == self._steps:
            self._print(self._line)
        self._seen = True

    def on_event(self, event: RunEvent) -> None:
        text = f"step {event.step}: {event.text}"
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            self._print(text)

    def on_run_end(self, result: RunResult) -> None:
        self.close()
        self._print(f"{result.reason} at step {result.step}")

    def close(self) -> None:
        """The terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


def step_line(record: StepRecord, *, steps: int, joules_per_token: float | None, watts: float | None) -> str:
    parts = [
        f"step {record.step}/{steps}",
        f"loss {record.loss:.4f}",
        f"{record.tokens_per_s:,.0f} tokens/s",
        f"{record.step_s:.3f} s/step",
        f"micro-batch {record.micro_sequences}",
        "power unknown" if watts is None else f"{watts:,.0f} W",
        *([] if joules_per_token is None else [f"{joules_per_token:.4g} J/token"]),
        *([] if record.held_out_loss is None else [f"held-out {record.held_out_loss:.4f}"]),
    ]
    return "  ".join(parts)
