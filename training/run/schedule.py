"""Learning rate by step: a linear warm-up, then a cosine down to a fraction. Pure."""

from __future__ import annotations

import math

from training.run.config_tables import OptimizerTable


def learning_rate(step: int, table: OptimizerTable) -> float:
    """Of optimiser step `step`, counted from 0. The first step of a warm-up of n is 1/n of the whole."""
    if step < table.warmup_steps:
        return table.learning_rate * (step + 1) / table.warmup_steps
    falling_steps = max(1, table.steps - table.warmup_steps)
    done_fraction = min(1.0, (step - table.warmup_steps) / falling_steps)
    final = table.final_learning_rate_fraction
    return table.learning_rate * (final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * done_fraction)))
