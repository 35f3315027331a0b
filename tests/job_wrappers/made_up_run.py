"""A run folder as a training would leave it: a pipeline of 2 x 2 ranks that is stopped by a power signal and goes on as
2 x 1 x 2, with its micro-batch lowered for a while. Every number follows from what is written here."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from job_wrappers.training.attempts import AttemptBegin, AttemptEnd, AttemptFiles, Trace
from tests.job_wrappers.step_records import step_record
from training.model.presets import preset
from training.parallel.plan import ParallelPlan
from training.planning.volume import bytes_per_step
from training.precision import policy
from training.run.listener import RunEvent
from training.run.records import RecordFiles

START_S = 1.7e9
SEQUENCES, LENGTH_TOKENS = 16, 256
STANDING_WATTS, START_UP_S = 280.0, 8.0
PLAN = ParallelPlan(pipeline=4, data=1, micro_sequences=2, micro_batches=8)
OTHER_PLAN = ParallelPlan(pipeline=2, data=2, expert=2, micro_sequences=2, micro_batches=4)
BUSY = {4: (0.74, 0.70, 0.71, 0.62), 2: (0.78, 0.74)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Steps that are alike."""

    steps: range
    step_s: float
    watts: float
    micro_sequences: int = 2
    pause_s: float = 0.0


def begin_of(plan: ParallelPlan, *, began_at_unix_s: float, **changes: object) -> AttemptBegin:
    model = preset("small-v3")
    formula = bytes_per_step(plan, model, LENGTH_TOKENS, policy("fp8"))
    begin = AttemptBegin(
        job_id=1204,
        restart_count=0,
        nodes=("n01", "n02"),
        began_at_unix_s=began_at_unix_s,
        trained_from_unix_s=began_at_unix_s + START_UP_S,
        resumed_from_step=None,
        plan=asdict(plan),
        policy="fp8",
        model=model.to_hf(),
        parameters=model.parameter_count(),
        world_size=plan.world_size,
        steps=240,
        global_sequences=SEQUENCES,
        sequence_length_tokens=LENGTH_TOKENS,
        peak_flops_per_s=4 * 1978.9e12,
        bytes_formula_by_axis=formula,
    )
    return replace(begin, **changes)  # type: ignore[arg-type]


def write_run(folder: Path) -> None:
    begin = begin_of(PLAN, began_at_unix_s=START_S)
    first = [
        Piece(steps=range(1, 13), step_s=0.6, watts=1100.0, pause_s=0.5),
        Piece(steps=range(13, 61), step_s=0.6, watts=2100.0),
        Piece(steps=range(61, 101), step_s=0.9, watts=1500.0, micro_sequences=1),
    ]
    end_s = write_attempt(folder, begin, first, reason="power signal SIGUSR1", exit_code=75, plan=PLAN)
    again_s = end_s + 45.0
    again = begin_of(OTHER_PLAN, began_at_unix_s=again_s, restart_count=1, resumed_from_step=100)
    write_attempt(
        folder,
        again,
        [Piece(steps=range(101, 241), step_s=0.55, watts=2200.0)],
        reason="all steps done",
        exit_code=0,
        plan=OTHER_PLAN,
    )
    _tell(folder, end_s, again_s)


def write_attempt(
    folder: Path, begin: AttemptBegin, pieces: list[Piece], *, reason: str, exit_code: int, plan: ParallelPlan
) -> float:
    """When it ended. A power reading a second."""
    now_s, joules = begin.began_at_unix_s, 0.0
    trace: Trace = [(now_s, joules)]
    now_s, joules = now_s + START_UP_S, START_UP_S * STANDING_WATTS
    trace.append((now_s, joules))
    steps = RecordFiles(folder)
    for piece in pieces:
        for step in piece.steps:
            now_s, joules = now_s + piece.step_s + piece.pause_s, joules + piece.watts * (piece.step_s + piece.pause_s)
            trace.append((now_s, joules))
            steps.on_step(_record(step, piece, plan, begin, ended_at_unix_s=now_s))
    end = AttemptEnd(
        ended_at_unix_s=now_s + 1.0, exit_code=exit_code, reason=reason, step=pieces[-1].steps[-1], gpus=4,
        used_joules=joules, energy_unknown=None,
    )  # fmt: skip
    rows: Iterator[Trace] = iter([trace, []])
    files = AttemptFiles(folder, take_trace=lambda: next(rows))
    files.begin(begin)
    files.flush()
    files.end(end)
    return now_s


def _record(step: int, piece: Piece, plan: ParallelPlan, begin: AttemptBegin, *, ended_at_unix_s: float) -> object:
    wave = math.sin(7.0 * step) + 0.5 * math.sin(3.1 * step)
    loss = 2.1 + 3.4 * math.exp(-step / 45.0) + 0.04 * wave
    tokens = SEQUENCES * LENGTH_TOKENS
    step_s = piece.step_s * (1.0 + 0.02 * wave)
    return step_record(
        step=step,
        loss=loss,
        held_out_loss=2.16 + 3.4 * math.exp(-step / 45.0) if step % 20 == 0 else None,
        tokens=tokens,
        step_s=step_s,
        pause_s=piece.pause_s,
        tokens_per_s=tokens / (step_s + piece.pause_s),
        busy_fraction_by_stage=tuple(share + 0.01 * wave for share in BUSY[plan.pipeline]),
        bytes_by_axis={axis: 1.0004 * size for axis, size in begin.bytes_formula_by_axis.items()} | {"tensor": 0.0},
        micro_sequences=piece.micro_sequences,
        model_flops_utilisation=0.31 + 0.01 * wave,
        ended_at_unix_s=ended_at_unix_s,
    )


def _tell(folder: Path, end_s: float, again_s: float) -> None:
    events = RecordFiles(folder)
    changed_s = START_S + START_UP_S + 12 * 1.1 + 48 * 0.6 + 0.9
    for event in (
        RunEvent(kind="ramp_ended", text="full power is allowed", step=12, at_unix_s=START_S + START_UP_S + 13.2),
        RunEvent(
            kind="checkpoint_saved", text="checkpoint step-50 written in 0.4 s", step=50, at_unix_s=START_S + 43.0
        ),
        RunEvent(
            kind="micro_batch_changed",
            text="micro-batch 2 -> 1",
            step=61,
            at_unix_s=changed_s,
            facts={
                "micro_sequences_before": 2,
                "micro_sequences_after": 1,
                "asked_at_unix_s": changed_s - 1.2,
                "effect_s": 1.2,
                "step_s_before": 0.6,
                "step_s_after": 0.9,
            },
        ),
        RunEvent(kind="power_signal", text="SIGUSR1: save <and> leave", step=100, at_unix_s=end_s),
        RunEvent(kind="checkpoint_saved", text="checkpoint step-100 written", step=100, at_unix_s=end_s + 0.9),
        RunEvent(kind="resumed", text="from step 100", step=100, at_unix_s=again_s),
        RunEvent(kind="checkpoint_saved", text="checkpoint step-150 written", step=150, at_unix_s=again_s + 35.5),
        RunEvent(kind="checkpoint_saved", text="checkpoint step-200 written", step=200, at_unix_s=again_s + 63.0),
    ):
        events.on_event(event)
