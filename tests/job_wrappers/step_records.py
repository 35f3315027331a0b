"""A step as a run would tell it, for tests of whoever listens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from training.run.listener import RunFacts, StepRecord

_STEP = StepRecord(
    step=1,
    loss=2.5,
    learning_rate=1e-3,
    gradient_norm=0.7,
    tokens=1024,
    step_s=0.5,
    tokens_per_s=2048.0,
    busy_fraction_by_stage=(0.75,),
    bytes_by_axis={"pipe": 4096.0},
    micro_sequences=4,
    model_flops_utilisation=None,
    sequences_consumed=8,
    ended_at_unix_s=1.7e9,
)


def step_record(**changes: Any) -> StepRecord:
    return replace(_STEP, **changes)


def run_facts(**changes: Any) -> RunFacts:
    facts = RunFacts(
        run_folder="runs/a",
        model_family="deepseek_v3",
        parameters=1_200_000,
        policy="fp8",
        plan={"pipeline": 2, "tensor": 1, "data": 2, "expert": 2, "micro_sequences": 4, "micro_batches": 1},
        world_size=4,
        steps=20,
        global_sequences=8,
        sequence_length_tokens=128,
        flops_per_token=7.2e6,
        peak_flops_per_s=None,
        resumed_from_step=None,
        began_at_unix_s=1.7e9,
    )
    return replace(facts, **changes)
