"""The rules a ParallelPlan must keep, each as one line for a person. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from training.errors import ConfigError

if TYPE_CHECKING:
    from training.model.config import ModelConfig
    from training.parallel.plan import ParallelPlan

TOKEN_TILE = 128
"""Tokens that share a scale in an FP8 weight gradient."""

SCHEDULES = ("1f1b", "dualpipev")
ZERO_STAGES = (1, 2, 3)
_COUNTS = ("pipeline", "tensor", "data", "expert", "micro_sequences", "micro_batches")


@dataclass(frozen=True, slots=True)
class Problem:
    """A broken rule. `rule` is the same for every plan that breaks it, so that they can be counted."""

    rule: str
    text: str


def _problem(key: str, value: object, rule: str, because: str = "") -> Problem:
    return Problem(f"parallel.{key}: {rule}", f"parallel.{key} = {value}: {rule}{f' ({because})' if because else ''}")


def own_problems(plan: ParallelPlan, ranks: int | None) -> tuple[Problem, ...]:
    """What can be said without the model. `ranks`: how many there are; None if nobody knows yet."""
    below_one = tuple(
        _problem(name, getattr(plan, name), "must be at least 1") for name in _COUNTS if getattr(plan, name) < 1
    )
    return below_one or (*_choices(plan), *_products(plan, ranks))


def _choices(plan: ParallelPlan) -> Iterator[Problem]:
    if plan.schedule not in SCHEDULES:
        yield _problem("schedule", plan.schedule, f"must be one of {', '.join(SCHEDULES)}")
    if plan.zero_stage not in ZERO_STAGES:
        # With 0, DeepSpeed keeps no FP32 master copy and clips by the gradients of one pipeline rank only.
        yield _problem("zero_stage", plan.zero_stage, "must be 1, 2 or 3")


def _products(plan: ParallelPlan, ranks: int | None) -> Iterator[Problem]:
    if ranks is not None and plan.world_size != ranks:
        product = f"{plan.pipeline} x {plan.data} x {plan.tensor} = {plan.world_size}, there are {ranks}"
        yield _problem("pipeline x data x tensor", plan.world_size, "must be the number of ranks", product)
    if plan.data % plan.expert:
        yield _problem("expert", plan.expert, "must divide data", f"data = {plan.data}")
    if plan.pipeline > 1 and plan.zero_stage > 1:
        # DeepSpeed asserts it: a pipeline adds up gradients over micro-batches, ZeRO-2 gives them away after each.
        yield _problem("zero_stage", plan.zero_stage, "must be 1 with a pipeline", f"pipeline = {plan.pipeline}")
    if plan.expert > 1 and plan.zero_stage > 2:
        # DeepSpeed shards every parameter over the whole data axis there.
        yield _problem(
            "zero_stage", plan.zero_stage, "must be below 3 with expert parallelism", f"expert = {plan.expert}"
        )
    if plan.schedule == "dualpipev":
        yield from _dualpipev(plan)


def _dualpipev(plan: ParallelPlan) -> Iterator[Problem]:
    if plan.pipeline < 2:
        yield _problem("schedule", plan.schedule, "needs a pipeline of at least 2", f"pipeline = {plan.pipeline}")
    if plan.micro_batches < 2 * plan.pipeline:
        least = f"{2 * plan.pipeline} with pipeline = {plan.pipeline}"
        yield _problem("micro_batches", plan.micro_batches, "must be at least 2 x pipeline for dualpipev", least)


def model_problems(plan: ParallelPlan, model: ModelConfig, sequence_length: int, *, fp8: bool) -> tuple[Problem, ...]:
    """What the model forbids. `fp8`: its weight gradients are multiplied in FP8."""
    return (*_depth(plan, model), *_cuts(plan, model), *_tokens(plan, sequence_length, fp8=fp8))


def _depth(plan: ParallelPlan, model: ModelConfig) -> Iterator[Problem]:
    blocks = model.num_hidden_layers + model.num_nextn_predict_layers
    if blocks < plan.stages:
        stages = f"{plan.stages} stages, {blocks} blocks"
        yield _problem("pipeline", plan.pipeline, "must leave every stage a block of the model", stages)


def _cuts(plan: ParallelPlan, model: ModelConfig) -> Iterator[Problem]:
    """The model knows what can be cut; asked for each axis, so that both are named."""
    for tensor, expert in ((plan.tensor, 1), (1, plan.expert)):
        try:
            model.check_cuts(tensor=tensor, expert=expert)
        except ConfigError as refused:
            key, _, rule = str(refused).partition(": ")
            yield Problem(f"{key.partition(' = ')[0]}: {rule}", str(refused))


def _tokens(plan: ParallelPlan, sequence_length: int, *, fp8: bool) -> Iterator[Problem]:
    tokens = plan.micro_sequences * sequence_length
    if fp8 and tokens % TOKEN_TILE:
        # A tile cut short by the end of a micro-batch has another scale: losses would depend on how a batch is cut.
        product = f"{plan.micro_sequences} x sequence_length {sequence_length} = {tokens}"
        rule = f"must make micro-batches of a multiple of {TOKEN_TILE} tokens with FP8"
        yield _problem("micro_sequences", plan.micro_sequences, rule, product)
