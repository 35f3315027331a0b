"""slurm-power-train steer: change a training while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import click

from job_wrappers.training.attempts import find_run_folder
from training.errors import ConfigError, Unavailable
from training.run.control import ControlRequest, write_control
from training.run.listener import RunEvent
from training.run.records import read_events

ANSWERS = {
    "micro_sequences": ("micro_batch_changed", "micro_batch_refused"),
    "ramp_held": ("ramp_held", "ramp_released", "ramp_ended"),
    "checkpoint_now": ("checkpoint_saved", "checkpoint_failed", "checkpoint_skipped"),
}
_POLL_S = 0.2


@click.command()
@click.argument("run")
@click.option(
    "--micro-sequences", type=click.IntRange(1), help="Sequences in one forward pass; the global batch stays."
)
@click.option("--checkpoint-now", is_flag=True, help="Save at the end of the step that runs.")
@click.option("--hold-ramp/--release-ramp", default=None, help="Let power rise no further after a start, or let it.")
@click.option("--wait-s", type=click.FloatRange(0.0), default=60.0, show_default=True, help="For the run's answer.")
def steer(run: str, micro_sequences: int | None, checkpoint_now: bool, hold_ramp: bool | None, wait_s: float) -> None:
    """Change RUN while it trains: a run folder, or a Slurm job id. Only its own user can.

    A smaller micro-batch draws less and trains slower; the loss curve does not change.
    """
    folder = find_run_folder(run, Path.cwd())
    request = ControlRequest(
        asked_at_unix_s=time.time(),
        micro_sequences=micro_sequences,
        ramp_held=hold_ramp,
        checkpoint_now=checkpoint_now,
    )
    asked = {"micro_sequences": micro_sequences, "ramp_held": hold_ramp, "checkpoint_now": checkpoint_now or None}
    wanted = [key for key, value in asked.items() if value is not None]
    if not wanted:
        raise ConfigError("steer: say what to change: --micro-sequences, --checkpoint-now, --hold-ramp")
    write_control(folder, request)
    if wait_s > 0:
        for key in wanted:
            answer = await_answer(lambda: read_events(folder), key, since_unix_s=request.asked_at_unix_s, wait_s=wait_s)
            click.echo(f"step {answer.step}: {answer.text}")


def await_answer(events: Callable[[], list[RunEvent]], key: str, *, since_unix_s: float, wait_s: float) -> RunEvent:
    """Raise ConfigError when the run refuses, Unavailable when it does not answer."""
    deadline_s = time.monotonic() + wait_s
    while True:
        for event in events():
            if event.at_unix_s >= since_unix_s and event.kind in (*ANSWERS[key], "control_ignored"):
                if event.kind in ("micro_batch_refused", "control_ignored"):
                    raise ConfigError(event.text)
                return event
        if time.monotonic() >= deadline_s:
            raise Unavailable(f"the run did not answer within {wait_s:.0f} s; it looks for requests between steps")
        time.sleep(_POLL_S)
