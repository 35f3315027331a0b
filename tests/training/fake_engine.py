"""A model of one weight a token, trained as an engine trains: over micro-batches, data ranks, and exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch

from training.checkpoint.agreement import Agreement
from training.errors import NumericsError
from training.parallel.optimizer_state import StateShard
from training.parallel.plan import ParallelPlan
from training.parallel.shards import Part

PART = Part("weight", (512,))


class FakeEngine:
    """Data parallel over all ranks of `agreement`. `before_step`: told the number of the step that begins."""

    def __init__(
        self, plan: ParallelPlan, agreement: Agreement, before_step: Callable[[int], None] = lambda step: None
    ) -> None:
        self.plan, self._agreement, self._before_step = plan, agreement, before_step
        self.context = SimpleNamespace(
            data=SimpleNamespace(rank=agreement.rank, size=agreement.world_size), pipe=SimpleNamespace(rank=0, size=1)
        )
        self.micro_sequences, self.micro_batches = plan.micro_sequences, plan.micro_batches
        self.weight = torch.linspace(-1.0, 1.0, 512)
        self.moment = torch.zeros(512)
        self.steps = 0
        self.rate = 0.0
        self.taken: list[int] = []
        """Micro-batches of each step."""

        self.poisoned_step: int | None = None

    def set_learning_rate(self, value: float) -> None:
        self.rate = value

    def set_micro_batch(self, micro_sequences: int) -> None:
        self.micro_batches = self.micro_batches * self.micro_sequences // micro_sequences
        self.micro_sequences = micro_sequences

    def train_step(self, batches: Iterator[tuple[Any, Any]]) -> Any:
        self._before_step(self.steps + 1)
        if self.steps + 1 == self.poisoned_step:
            raise NumericsError(f"step {self.steps + 1}: gradient is not finite on rank 0")
        loss, gradient, count = self._pass(batches)
        self.taken.append(count)
        self.moment = 0.9 * self.moment + gradient
        self.weight = self.weight - self.rate * self.moment
        self.steps += 1
        return SimpleNamespace(
            loss=loss, gradient_norm=float(gradient.norm()), step_s=0.25, busy_s={"forward": 0.05, "backward": 0.1},
            bytes_by_axis={"data": 2048},
        )  # fmt: skip

    def evaluate(self, batches: Iterator[tuple[Any, Any]], micro_batches: int) -> float:
        loss, _, count = self._pass(batches)
        assert count == micro_batches
        return loss

    def optimizer_shards(self) -> Iterator[StateShard]:
        if self._agreement.rank == 0:
            yield StateShard(PART, {"master": self.weight, "exp_avg": self.moment})

    def load_optimizer_shards(self, read: Callable[[Part, str], Any], *, steps: int) -> None:
        self.weight, self.moment, self.steps = read(PART, "master").clone(), read(PART, "exp_avg").clone(), steps

    def _pass(self, batches: Iterator[tuple[Any, Any]]) -> tuple[float, Any, int]:
        """Sums in whole numbers, so that no way to cut the batch rounds otherwise."""
        squares, gradient, tokens, count = 0, torch.zeros(512, dtype=torch.int64), 0, 0
        for inputs, labels in batches:
            assert inputs.shape[0] == self.micro_sequences
            errors = ((self.weight[inputs].double() - labels.double() / 512.0) * 2**20).round().long()
            squares += int((errors.double() ** 2).sum().item())
            gradient.index_put_((inputs.flatten(),), errors.flatten(), accumulate=True)
            tokens, count = tokens + inputs.numel(), count + 1
        sums = self._agreement.total([float(squares), float(tokens), *(float(each) for each in gradient.tolist())])
        mean = torch.tensor(sums[2:], dtype=torch.float64) / 2**20 / sums[1]
        return sums[0] / 2**40 / sums[1], mean.float(), count
