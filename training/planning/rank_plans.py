"""Every way to cut a model over N GPUs: which cannot run and why, and the best of those that can. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from training.errors import ConfigError, require
from training.model.config import ModelConfig
from training.parallel.plan import ParallelPlan
from training.parallel.plan_rules import SCHEDULES
from training.planning.cost import PredictedStep, predict_step
from training.planning.hardware import Hardware
from training.planning.memory import predicted_memory_bytes
from training.precision import PrecisionPolicy

MEMORY_FRACTION = 0.9
"""Of a GPU's memory: the rest is for what `training.planning.memory` does not count."""

ORDERS = ("time", "energy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    model: ModelConfig
    gpus: int
    global_sequences: int
    sequence_length: int
    policy: PrecisionPolicy
    hardware: Hardware

    def __post_init__(self) -> None:
        for key in ("gpus", "global_sequences", "sequence_length"):
            require(getattr(self, key) >= 1, key, getattr(self, key), "must be at least 1")


@dataclass(frozen=True, slots=True)
class RankedPlan:
    plan: ParallelPlan
    predicted: PredictedStep


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    best: tuple[RankedPlan, ...]
    tried: int
    feasible: int
    refused: Mapping[str, int]
    """How many plans broke each rule, most frequent first; a plan that breaks several counts for each."""


def rank_plans(question: Question, *, order: str = "time", top: int = 10) -> Ranking:
    """The `top` plans by predicted step time or by energy, the other one breaking ties.

    Raise ConfigError for an unknown order, and when no plan can run: its line says what was closest to it.
    """
    require(order in ORDERS, "order", order, f"must be one of {', '.join(ORDERS)}")
    refused: Counter[str] = Counter()
    feasible: list[RankedPlan] = []
    tried, too_large_bytes = 0, []
    for plan in candidates(question):
        tried += 1
        reasons = _reasons(plan, question)
        if not reasons:
            needed_bytes = predicted_memory_bytes(plan, question.model, question.sequence_length, question.policy)
            if needed_bytes > MEMORY_FRACTION * question.hardware.memory_bytes:
                too_large_bytes.append(needed_bytes)
                reasons = {_memory_rule(question)}
        refused.update(reasons)
        if not reasons:
            feasible.append(RankedPlan(plan, _predicted(plan, question)))
    if not feasible:
        raise ConfigError(
            f"gpus = {question.gpus}: none of {tried} plans can run; {_closest(question, refused, too_large_bytes)}"
        )
    feasible.sort(key=_by_time if order == "time" else _by_energy)
    return Ranking(best=tuple(feasible[:top]), tried=tried, feasible=len(feasible), refused=dict(refused.most_common()))


def candidates(question: Question) -> Iterator[ParallelPlan]:
    """All products that use every GPU and make up the global batch exactly; ZeRO-3 only where there is no pipeline."""
    for pipeline in _divisors(question.gpus):
        for tensor in _divisors(question.gpus // pipeline):
            data = question.gpus // pipeline // tensor
            if question.global_sequences % data:
                continue
            of_a_rank = question.global_sequences // data
            for micro_sequences in _divisors(of_a_rank):
                for expert in _divisors(data) if question.model.has_experts else (1,):
                    for schedule, zero_stage in _variants(pipeline):
                        yield ParallelPlan(
                            pipeline=pipeline,
                            tensor=tensor,
                            data=data,
                            expert=expert,
                            micro_sequences=micro_sequences,
                            micro_batches=of_a_rank // micro_sequences,
                            schedule=schedule,
                            zero_stage=zero_stage,
                        )


def _variants(pipeline: int) -> tuple[tuple[str, int], ...]:
    """A pipeline has two schedules; without one, ZeRO may deal out more."""
    return tuple((schedule, 1) for schedule in SCHEDULES) if pipeline > 1 else (("1f1b", 1), ("1f1b", 2), ("1f1b", 3))


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def _reasons(plan: ParallelPlan, question: Question) -> set[str]:
    problems = plan.problems(question.model, question.sequence_length, policy=question.policy.name, ranks=question.gpus)
    if problems:
        return {problem.rule for problem in problems}
    if plan.tensor > question.hardware.gpus_per_node:
        return {"parallel.tensor: must stay inside a node"}
    return set()


def _memory_rule(question: Question) -> str:
    return f"memory: must fit into {MEMORY_FRACTION:.0%} of {question.hardware.memory_bytes / 1e9:.0f} GB"


def _predicted(plan: ParallelPlan, question: Question) -> PredictedStep:
    return predict_step(plan, question.model, question.sequence_length, question.policy, question.hardware)


def _closest(question: Question, refused: Counter[str], too_large_bytes: Sequence[float]) -> str:
    """A plan that only lacks memory is closer than one that breaks a rule."""
    if too_large_bytes:
        return f"{_memory_rule(question)}, and the smallest needs {min(too_large_bytes) / 1e9:.3g} GB"
    if refused:
        rule, count = refused.most_common(1)[0]
        return f"{count} of them: {rule}"
    return f"no data axis divides global_sequences = {question.global_sequences}"


def _by_time(ranked: RankedPlan) -> tuple[float, float]:
    return ranked.predicted.step_s, ranked.predicted.joules


def _by_energy(ranked: RankedPlan) -> tuple[float, float]:
    return ranked.predicted.joules, ranked.predicted.step_s
