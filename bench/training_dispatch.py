"""Bytes that expert parallelism moves in one training step, counted at the collectives, FP8 against BF16."""

from __future__ import annotations

import torch

from tests.training.ranks import run_ranks
from training.model.presets import preset
from training.optim import OptimizerSettings
from training.parallel.build import build_engine
from training.parallel.groups import close_groups, open_groups
from training.parallel.plan import ParallelPlan
from training.precision import policy

DISPATCH = "expert.dispatch"
PLAN = ParallelPlan(pipeline=1, tensor=1, data=2, expert=2, micro_sequences=2, micro_batches=1)
SEQUENCE_LENGTH = 128


def measure() -> float:
    """Bytes of the dispatch in FP8 over those in BF16, both ranks together."""
    fp8, bf16 = (sum(run_ranks(_dispatch_bytes, PLAN.world_size, name)) for name in ("fp8", "bf16"))
    return fp8 / bf16


def _dispatch_bytes(policy_name: str) -> int:
    context = open_groups(PLAN)
    try:
        model = preset("tiny-v3")
        engine = build_engine(
            model,
            PLAN,
            policy(policy_name),
            OptimizerSettings(learning_rate=1e-3),
            context=context,
            sequence_length=SEQUENCE_LENGTH,
            seed=0,
            gradient_clipping=1.0,
        )
        generator = torch.Generator().manual_seed(context.data.rank)
        tokens = torch.randint(model.vocab_size, (PLAN.micro_sequences, SEQUENCE_LENGTH), generator=generator)
        return engine.train_step(iter([(tokens, tokens)])).bytes_by_name[DISPATCH]
    finally:
        close_groups()


if __name__ == "__main__":
    print(f"{measure():.4f}")
