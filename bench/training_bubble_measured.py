"""Bubbles of the real engine: every rank a process, every layer padded with a pause, so that ranks do not share cores.

A pause in each layer's forward pass and one twice as long in its backward pass stand for a GPU's work: the cores idle
meanwhile, so four ranks behave on two cores as on four. The small model's own arithmetic comes on top.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from typing import Any

import torch

from tests.training.ranks import run_ranks
from training.model import layers
from training.model.presets import PRESETS
from training.optim import OptimizerSettings
from training.parallel.build import build_engine
from training.parallel.groups import close_groups, open_groups
from training.parallel.plan import ParallelPlan
from training.planning.bubble import measured_fraction
from training.precision import policy

CASES = tuple((schedule, p, m) for schedule in ("1f1b", "dualpipev") for p, m in ((2, 4), (2, 8), (4, 8), (4, 16)))
FORWARD_S = 0.04
"""Of one rank's share of a micro-batch."""

STEPS, WARM_UP_STEPS = 4, 2
SEQUENCE_LENGTH = 16
MODEL = replace(PRESETS["tiny-llama"], num_hidden_layers=8, hidden_size=64, intermediate_size=64, vocab_size=64)


def measure() -> dict[tuple[str, int, int], float]:
    """Idle share of a step by schedule, ranks and micro-batches; median over the steps after the warm-up."""
    return {case: _idle_fraction(*case) for case in CASES}


def _idle_fraction(schedule: str, p: int, m: int) -> float:
    ranks = run_ranks(_steps, p, schedule, p, m)
    shares = [
        measured_fraction([busy for busy, _ in step], max(whole for _, whole in step), p)
        for step in list(zip(*ranks, strict=True))[WARM_UP_STEPS:]
    ]
    return statistics.median(shares)


def _steps(schedule: str, p: int, m: int) -> list[tuple[float, float]]:
    """Busy and whole seconds of each step on this rank."""
    pause_s = FORWARD_S * p / MODEL.num_hidden_layers
    layers.DecoderLayer.forward = _padded(layers.DecoderLayer.forward, pause_s)  # this rank's process only
    plan = ParallelPlan(pipeline=p, tensor=1, data=1, expert=1, micro_sequences=1, micro_batches=m, schedule=schedule)
    context = open_groups(plan)
    try:
        engine = build_engine(
            MODEL,
            plan,
            policy("fp32"),
            OptimizerSettings(learning_rate=1e-3),
            context=context,
            sequence_length=SEQUENCE_LENGTH,
            seed=0,
            gradient_clipping=1.0,
        )
        tokens = torch.arange(SEQUENCE_LENGTH).unsqueeze(0)
        outcomes = [engine.train_step(iter([(tokens, tokens)] * m)) for _ in range(WARM_UP_STEPS + STEPS)]
        return [(sum(outcome.busy_s.values()), outcome.step_s) for outcome in outcomes]
    finally:
        close_groups()


class _Pause(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, forward_s: float) -> Any:
        ctx.forward_s = forward_s
        time.sleep(forward_s)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> tuple[Any, None]:
        time.sleep(2 * ctx.forward_s)
        return gradient, None


def _padded(forward: Any, forward_s: float) -> Any:
    def padded(layer: Any, state: Any) -> Any:
        streams, tokens = forward(layer, state)
        return _Pause.apply(streams, forward_s), tokens

    return padded


if __name__ == "__main__":
    for case, share in measure().items():
        print(*case, f"{share:.3f}")
