"""One interface to train a model with, whatever the plan."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from training.errors import NumericsError, require
from training.matmul import weight_cache
from training.model.moe import update_router_bias
from training.optim import OptimizerSettings
from training.parallel.context import ParallelContext
from training.parallel.counted import COUNTER
from training.parallel.gradients import StepGate, deferred_complaints
from training.parallel.optimizer_state import OptimizerState, Read, StateShard
from training.parallel.plan import DUALPIPEV, ParallelPlan
from training.parallel.timings import STEP, Span, StepClock, busy_s
from training.parallel.traffic import counting

Batches = Iterator[tuple[Tensor, Tensor]]
"""Micro-batches: token ids and labels, int64 [micro_sequences, sequence_length]; tensor ranks get the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOutcome:
    """One optimiser step as one rank saw it."""

    loss: float
    """Mean over the global batch; the same on all ranks."""

    gradient_norm: float
    """Of all parameters, before clipping; the same on all ranks."""

    step_s: float
    busy_s: Mapping[str, float]
    """This rank's seconds in "forward", "backward" and "optimizer"."""

    spans: tuple[Span, ...]
    """Everything this rank did, in order."""

    bytes_by_axis: Mapping[str, int]
    """Payload that this rank handed to sends and collectives, by axis of the plan."""

    bytes_by_name: Mapping[str, int]
    """The same by "axis.purpose"."""


class Engine(ABC):
    """All ranks call the same methods in the same order. After an error it can only be closed."""

    def __init__(
        self,
        deepspeed_engine: Any,
        plan: ParallelPlan,
        context: ParallelContext,
        *,
        clock: StepClock,
        gate: StepGate,
        settings: OptimizerSettings,
    ) -> None:
        self.plan, self.context, self.clock = plan, context, clock
        self.steps = 0
        """Optimiser steps done."""

        self.micro_sequences, self.micro_batches = plan.micro_sequences, plan.micro_batches
        self._engine, self._optimizer, self._gate = deepspeed_engine, deepspeed_engine.optimizer, gate
        self._router_bias_speed = settings.router_bias_speed
        self._state = OptimizerState(self._optimizer, self.module, context, kind=settings.kind)
        gate.attach(self._optimizer)
        self._axis_of_group = _axis_of_group(deepspeed_engine, context)

    @property
    def module(self) -> Any:
        """This rank's layers, a torch.nn.Module."""
        return self._engine.module

    def train_step(self, batches: Batches) -> StepOutcome:
        """Take `micro_batches` items from `batches` and make one step.

        Raise NumericsError, on all ranks, when a loss or a gradient is not finite; the weights are then untouched.
        """
        COUNTER.reset()
        self.clock.restart()
        begin_s = time.perf_counter()
        with counting(self._axis_of_group, self._in_instruction), self._weights_kept(), deferred_complaints():
            loss = self._run_step(batches)
        update_router_bias(self.module, self.context, self._router_bias_speed)
        spans = self.clock.spans()
        self.steps += 1
        return StepOutcome(
            loss=loss,
            gradient_norm=self._gate.gradient_norm,
            step_s=time.perf_counter() - begin_s,
            busy_s=busy_s(spans),
            spans=spans,
            bytes_by_axis={axis: entry["bytes"] for axis, entry in COUNTER.bytes_by_axis.items()},
            bytes_by_name={name: entry["bytes"] for name, entry in COUNTER.bytes_by_name.items()},
        )

    def evaluate(self, batches: Batches, micro_batches: int) -> float:
        """Mean loss of `micro_batches` items, cut as in training, of every data rank; the same on all. Weights stay.

        Raise NumericsError when it is not finite, ConfigError for fewer items than the schedule needs.
        """
        self._require_enough(micro_batches, "evaluation's micro-batches", micro_batches)
        with self._weights_kept(), deferred_complaints():
            loss = self._run_evaluation(batches, micro_batches)
        if not math.isfinite(loss):
            raise NumericsError(f"evaluation after step {self.steps}: loss is {loss}")
        return loss

    def set_micro_batch(self, micro_sequences: int) -> None:
        """From the next step on, cut the same global batch into micro-batches of `micro_sequences`.

        Raise ConfigError when that does not go into it, or when too few micro-batches for the schedule remain.
        """
        key = "batch.micro_sequences"
        of_one_rank = self.micro_sequences * self.micro_batches
        divides = micro_sequences > 0 and of_one_rank % micro_sequences == 0
        require(divides, key, micro_sequences, f"must divide {of_one_rank}, the sequences of one data rank")
        micro_batches = of_one_rank // micro_sequences
        self._require_enough(micro_batches, key, micro_sequences)
        self.micro_sequences, self.micro_batches = micro_sequences, micro_batches
        self._cut_batch()

    def _require_enough(self, micro_batches: int, key: str, value: int) -> None:
        least = 2 * self.plan.pipeline if self.plan.schedule == DUALPIPEV else 1
        rule = f"must leave at least {least} micro-batches for {self.plan.schedule}"
        require(micro_batches >= least, key, value, rule)

    def set_learning_rate(self, value: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = value

    def optimizer_shards(self) -> Iterator[StateShard]:
        """What a checkpoint needs, each piece on exactly one of all ranks. Collective: all ranks iterate to the end."""
        return self._state.shards()

    def load_optimizer_shards(self, read: Read, *, steps: int) -> None:
        """Go on from a state that `steps` steps led to. Collective; `read` gives pieces as this rank holds them."""
        self._state.load(read, steps=steps)
        self.steps = steps

    def close(self) -> None:
        """Release what DeepSpeed holds; the process groups stay open."""
        self._engine.destroy()

    def _check(self, loss: Any) -> None:
        """Before the optimiser's step. Not busy: whoever is done first waits here."""
        with self.clock.during("agree"):
            self._gate.check(self._optimizer, loss=loss, step=self.steps + 1)

    def _in_instruction(self) -> bool:
        """False while DeepSpeed tells all ranks the loss, a few bytes."""
        return self.clock.current != STEP

    def _weights_kept(self) -> AbstractContextManager[None]:
        """Quantise a weight once for all micro-batches; not in ZeRO-3, which gathers it anew for each of them."""
        return weight_cache() if self.plan.zero_stage < 3 else nullcontext()

    @abstractmethod
    def _run_step(self, batches: Batches) -> float:
        """Make one step; its loss."""

    @abstractmethod
    def _run_evaluation(self, batches: Batches, micro_batches: int) -> float: ...

    def _cut_batch(self) -> None:
        """Tell DeepSpeed the new `micro_sequences` and `micro_batches`."""
        self._engine._config.train_micro_batch_size_per_gpu = self.micro_sequences
        self._engine._config.gradient_accumulation_steps = self.micro_batches


def _axis_of_group(deepspeed_engine: Any, context: ParallelContext) -> dict[Any, str]:
    """The plan's axes by process group. DeepSpeed's grid has groups of its own beside the context's."""
    grid = deepspeed_engine.mpu
    by_group = {
        grid.get_data_parallel_group(): context.data,
        grid.get_pipe_parallel_group(): context.pipe,
        grid.get_slice_parallel_group(): context.tensor,
    }
    by_group |= {axis.group: axis for axis in (context.data, context.pipe, context.tensor, context.expert_data)}
    shared = getattr(deepspeed_engine.module, "shared_weights", ())
    by_group |= {weight.group: context.pipe for weight in shared if weight.group is not None}
    return {group: axis.name for group, axis in by_group.items() if axis.size > 1}
