"""The same training on several plans: what the parity tests and the parity bench compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.training.rank_functions_engine import Scenario, train_all
from tests.training.ranks import run_ranks

STEPS = 20
PLANS = ("1x1x1", "2x1x1", "2x1x1 dualpipev", "1x2x1", "1x1x2", "2x2x1", "2x1x2", "2x2x2")
"""Pipeline x tensor x data."""

POLICIES = ("fp32", "bf16", "fp8")
OPTIMIZERS = ("adamw", "sgd")

Curve = list[tuple[float, float]]
"""Loss and gradient norm, step by step."""


@dataclass(frozen=True, slots=True)
class Case:
    policy: str
    optimizer: str
    model: str = "tiny-v3"


def cases(policies: Sequence[str] = POLICIES, optimizers: Sequence[str] = OPTIMIZERS) -> list[Case]:
    return [Case(policy, optimizer) for policy in policies for optimizer in optimizers]


def scenario(plan: str, case: Case) -> Scenario:
    """Experts are shared out over the data axis where it has two ranks."""
    sizes, _, schedule = plan.partition(" ")
    pipeline, tensor, data = (int(size) for size in sizes.split("x"))
    return Scenario(
        pipeline=pipeline,
        tensor=tensor,
        data=data,
        expert=data if "v3" in case.model else 1,
        schedule=schedule or "1f1b",
        model=case.model,
        policy=case.policy,
        optimizer=case.optimizer,
    )


def curves(plan: str, chosen: Sequence[Case], steps: int = STEPS) -> Mapping[Case, Curve]:
    """As rank 0 saw them; raise AssertionError when another rank saw something else."""
    scenarios = [scenario(plan, case) for case in chosen]
    by_rank = run_ranks(train_all, scenarios[0].plan.world_size, scenarios, steps, timeout_s=1200.0)
    assert all(rank == by_rank[0] for rank in by_rank), f"{plan}: ranks disagree about the loss"
    return dict(zip(chosen, by_rank[0], strict=True))


def unsplit(plan: str) -> str:
    """The plan with the same tensor and data axes and no pipeline."""
    _, tensor, data = plan.partition(" ")[0].split("x")
    return f"1x{tensor}x{data}"


def largest_difference(one: Curve, other: Curve) -> float:
    return max(abs(a - b) for (a, _), (b, _) in zip(one, other, strict=True))
