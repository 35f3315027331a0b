"""What tests of the engine and the parity bench run on each rank: a small model on text that can be learned."""

from __future__ import annotations

import math
import os
import pickle
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from deepspeed.utils import safe_get_full_grad

from training.errors import StorageError, TrainingError
from training.model.config import ModelConfig
from training.model.presets import preset
from training.optim import OptimizerSettings
from training.parallel.build import build_engine
from training.parallel.context import ParallelContext
from training.parallel.engine import Engine, StepOutcome
from training.parallel.groups import close_groups, open_groups
from training.parallel.plan import ParallelPlan
from training.precision import policy

SEQUENCE_LENGTH = 64
GLOBAL_SEQUENCES = 8
MICRO_SEQUENCES = 2
"""Two sequences of 64 tokens: a micro-batch holds whole FP8 tiles, whatever the plan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    pipeline: int = 1
    tensor: int = 1
    data: int = 1
    expert: int = 1
    schedule: str = "1f1b"
    zero_stage: int = 1
    model: str = "tiny-v3"
    policy: str = "bf16"
    optimizer: str = "adamw"
    clipping: float = 0.5
    """Below the norm of every step: it clips."""

    micro_sequences: int = MICRO_SEQUENCES
    global_sequences: int = GLOBAL_SEQUENCES
    seed: int = 3

    @property
    def plan(self) -> ParallelPlan:
        return ParallelPlan(
            pipeline=self.pipeline,
            tensor=self.tensor,
            data=self.data,
            expert=self.expert,
            schedule=self.schedule,
            zero_stage=self.zero_stage,
            micro_sequences=self.micro_sequences,
            micro_batches=self.global_sequences // self.micro_sequences // self.data,
        )

    @property
    def config(self) -> ModelConfig:
        name, *variants = self.model.split("+")
        return replace(preset(name), **{key: value for each in variants for key, value in VARIANTS[each].items()})

    @property
    def settings(self) -> OptimizerSettings:
        return OptimizerSettings(kind=self.optimizer, learning_rate=PEAK_RATES[self.optimizer], weight_decay=0.1)


PEAK_RATES: Mapping[str, float] = {"adamw": 3e-4, "sgd": 0.1}
WARMUP_STEPS = 20

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "tied": {"tie_word_embeddings": True},
    "deep": {"num_nextn_predict_layers": 2},
}


def text(step: int, scenario: Scenario) -> Any:
    """int64 [global_sequences, SEQUENCE_LENGTH + 1]: each token but a few follows from the one before."""
    generator = torch.Generator().manual_seed(1000 + step)
    vocabulary = scenario.config.vocab_size
    tokens = torch.randint(0, vocabulary, (scenario.global_sequences, SEQUENCE_LENGTH + 1), generator=generator)
    surprise = torch.rand(tokens.shape, generator=generator) < 0.1
    for place in range(1, SEQUENCE_LENGTH + 1):
        follows = (5 * tokens[:, place - 1] + 17) % vocabulary
        tokens[:, place] = torch.where(surprise[:, place], tokens[:, place], follows)
    return tokens


def batches(step: int, scenario: Scenario, engine: Engine) -> Iterator[tuple[Any, Any]]:
    """This data rank's micro-batches of a step: the same sequences in the same order whatever their cut."""
    mine = text(step, scenario).chunk(scenario.data)[engine.context.data.rank]
    for micro_batch in mine.split(engine.micro_sequences):
        yield micro_batch[:, :-1].contiguous(), micro_batch[:, 1:].contiguous()


def start(scenario: Scenario, **options: Any) -> Engine:
    context = open_groups(scenario.plan, timeout_s=60.0)
    return build_on(scenario, context, **options)


def build_on(scenario: Scenario, context: ParallelContext, **options: Any) -> Engine:
    return build_engine(
        scenario.config,
        scenario.plan,
        policy(scenario.policy, backend="emulate"),
        scenario.settings,
        context=context,
        sequence_length=SEQUENCE_LENGTH,
        seed=scenario.seed,
        gradient_clipping=scenario.clipping,
        **options,
    )


def stop(engine: Engine) -> None:
    engine.close()
    close_groups()


def steps(engine: Engine, scenario: Scenario, numbers: range) -> list[StepOutcome]:
    outcomes = []
    for number in numbers:
        engine.set_learning_rate(scenario.settings.learning_rate * min(1.0, (number + 1) / WARMUP_STEPS))
        outcomes.append(engine.train_step(batches(number, scenario, engine)))
    return outcomes


def curve(outcomes: list[StepOutcome]) -> list[tuple[float, float]]:
    """(loss, gradient norm) of each step."""
    return [(outcome.loss, outcome.gradient_norm) for outcome in outcomes]


def train(scenario: Scenario, count: int) -> list[tuple[float, float]]:
    return train_all([scenario], count)[0]


def train_all(scenarios: list[Scenario], count: int) -> list[list[tuple[float, float]]]:
    """Several scenarios of one plan, one after the other in one process."""
    curves = []
    for scenario in scenarios:
        engine = start(scenario)
        curves.append(curve(steps(engine, scenario, range(count))))
        stop(engine)
    return curves


def outcomes_of(scenario: Scenario, count: int) -> list[StepOutcome]:
    engine = start(scenario)
    outcomes = steps(engine, scenario, range(count))
    stop(engine)
    return outcomes


def change_micro_batch(scenario: Scenario, sizes: list[int]) -> list[tuple[float, float]]:
    """A step with each size of the micro-batch."""
    engine = start(scenario)
    result = []
    for number, size in enumerate(sizes):
        engine.set_micro_batch(size)
        result += curve(steps(engine, scenario, range(number, number + 1)))
    stop(engine)
    return result


def evaluate_between(scenario: Scenario) -> tuple[list[float], list[tuple[float, float]]]:
    """Held-out loss before, after a step and after another one, and the curve of the two steps."""
    engine = start(scenario)
    micro_batches = scenario.plan.micro_batches

    def held_out() -> float:
        return engine.evaluate(batches(10_000, scenario, engine), micro_batches)

    losses, points = [held_out()], []
    for number in range(2):
        points += curve(steps(engine, scenario, range(number, number + 1)))
        losses.append(held_out())
    stop(engine)
    return losses, points


def saved_state(scenario: Scenario, count: int) -> tuple[dict[str, tuple[Any, Any]], int]:
    """After `count` steps, by "kind/name": where in the whole tensor, and this rank's piece. And the steps."""
    engine = start(scenario)
    steps(engine, scenario, range(count))
    state = _copied(engine)
    stop(engine)
    return state, count


def _copied(engine: Engine) -> dict[str, tuple[Any, Any]]:
    return {
        f"{kind}/{shard.part.hf_name}": (shard.part, tensor.clone())
        for shard in engine.optimizer_shards()
        for kind, tensor in shard.tensors.items()
    }


def train_on(
    scenario: Scenario, packed: bytes, done: int, count: int
) -> tuple[list[tuple[float, float]], dict[str, tuple[Any, Any]]]:
    """Go on from whole tensors by "kind/name", `count` steps after `done`; the curve, and the state as loaded.

    `packed`: by pickle; multiprocessing would hand over a file descriptor for each tensor.
    """
    wholes = pickle.loads(packed)
    engine = start(scenario)
    engine.load_optimizer_shards(lambda part, kind: wholes[f"{kind}/{part.hf_name}"][part.piece], steps=done)
    loaded = _copied(engine)
    result = curve(steps(engine, scenario, range(done, done + count)))
    stop(engine)
    return result, loaded


def poisoned_step(scenario: Scenario, bad_rank: int, where: str) -> str:
    """The error of the second step when `bad_rank` has an infinite weight, or gradient; "" when there is none."""
    engine = start(scenario)
    steps(engine, scenario, range(1))
    if dist.get_rank() == bad_rank:
        parameter = next(p for p in engine.module.parameters() if p.dim() == 2)
        spoiled = parameter.data if where == "weight" else parameter.fp32_gradient
        spoiled[0, 0] = math.inf
    before = [parameter.detach().clone() for parameter in engine.module.parameters()]
    try:
        steps(engine, scenario, range(1, 2))
        error = ""
    except TrainingError as raised:
        error = f"{type(raised).__name__}: {raised}"
    after = list(engine.module.parameters())
    bits = [(old.view(torch.int16), new.view(torch.int16)) for old, new in zip(before, after, strict=True)]
    untouched = all(torch.equal(old, new) for old, new in bits)
    stop(engine)
    return error if untouched else f"weights changed; {error}"


def told_and_seen(scenario: Scenario) -> tuple[list[tuple[str, str]], StepOutcome]:
    """What a step's instructions told, and its outcome."""
    told: list[tuple[str, str]] = []
    engine = start(scenario, on_instruction=lambda name, phase: told.append((name, phase)))
    (outcome,) = steps(engine, scenario, range(1))
    stop(engine)
    return told, outcome


def gradients_in_place(scenario: Scenario) -> dict[str, Any]:
    """What is known of the gradients right before and after the optimiser's step."""
    seen: dict[str, Any] = {}

    def look(name: str, phase: str) -> None:
        if name == "optimizer":
            parameters = list(engine.module.parameters())
            seen[phase] = {
                "autograd": [parameter.grad is not None for parameter in parameters],
                "dtypes": [parameter._hp_grad.dtype for parameter in parameters],
                "zero": [not parameter._hp_grad.any() for parameter in parameters],
                "deepspeed": all(
                    torch.equal(safe_get_full_grad(parameter).flatten(), parameter._hp_grad) for parameter in parameters
                ),
            }

    engine = start(scenario, on_instruction=look)
    steps(engine, scenario, range(1))
    stop(engine)
    return seen


def refused(scenario: Scenario, what: str) -> str:
    """The error of asking for something that cannot be; "" when it is not refused."""
    engine = None
    try:
        if what == "launch":
            os.environ["WORLD_SIZE"] = "3"
        engine = start(scenario)
        if what.startswith("micro "):
            engine.set_micro_batch(int(what.split()[1]))
        return ""
    except TrainingError as error:
        return f"{type(error).__name__}: {error}"
    finally:
        if engine is not None:
            stop(engine)


def lose_a_peer(scenario: Scenario, timeout_s: float) -> str:
    """Rank 1 falls silent before the second step; what the others see of it. It waits until they have seen it."""
    context = open_groups(scenario.plan, timeout_s=timeout_s)
    engine = build_on(scenario, context)
    steps(engine, scenario, range(1))
    if dist.get_rank() == 1:
        time.sleep(3 * timeout_s)
        return "silent"
    try:
        steps(engine, scenario, range(1, 2))
    except RuntimeError as error:  # torch's own
        return str(error)
    return "finished"


def unreadable_state(scenario: Scenario, bad_rank: int) -> str:
    """The error of loading a state that one rank cannot read."""
    engine = start(scenario)

    def read(part: Any, kind: str) -> Any:
        if dist.get_rank() == bad_rank:
            raise StorageError(f"{part.hf_name}: no {kind} stored")
        return torch.zeros(part.shape)[part.piece]

    try:
        engine.load_optimizer_shards(read, steps=1)
        return ""
    except TrainingError as error:
        return f"{type(error).__name__}: {error}"
    finally:
        stop(engine)


def cut_by_measurement(scenario: Scenario) -> tuple[list[int], list[tuple[float, float]]]:
    engine = start(scenario, measure_layers=True)
    boundaries = list(engine.module.parts)
    result = curve(steps(engine, scenario, range(1)))
    stop(engine)
    return boundaries, result
