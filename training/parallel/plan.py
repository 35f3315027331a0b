"""How a training job is cut: pipeline x data x tensor ranks, experts inside the data axis, micro-batches. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from training.errors import ConfigError
from training.parallel.plan_rules import Problem, model_problems, own_problems
from training.planning.bubble_formula import formula_fraction

if TYPE_CHECKING:
    from training.model.config import ModelConfig

ONE_F_ONE_B, DUALPIPEV = "1f1b", "dualpipev"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelPlan:
    """Ranks are numbered over the axes (pipe, data, tensor), the last one fastest: tensor ranks are neighbours.

    Made freely, also with values that cannot run; `validate` says what is wrong.
    """

    pipeline: int = 1
    tensor: int = 1
    data: int = 1
    expert: int = 1
    """Data ranks that share one set of routed experts; a divisor of `data`."""

    micro_sequences: int = 1
    """Sequences in one micro-batch of one data rank."""

    micro_batches: int = 1
    """Micro-batches of one data rank in one optimiser step."""

    schedule: str = ONE_F_ONE_B
    zero_stage: int = 1

    @property
    def world_size(self) -> int:
        return self.pipeline * self.data * self.tensor

    @property
    def stages(self) -> int:
        """Parts the model is cut into: DualPipeV gives every rank two of them."""
        return self.pipeline * self.chunks

    @property
    def chunks(self) -> int:
        """Model parts on one rank."""
        return 2 if self.schedule == DUALPIPEV else 1

    @property
    def global_sequences(self) -> int:
        return self.micro_sequences * self.micro_batches * self.data

    def validate(
        self, model: ModelConfig, sequence_length: int, *, policy: str = "fp8", ranks: int | None = None
    ) -> None:
        """Raise ConfigError with the first broken rule.

        `policy` is the precision policy's name (FP8 asks for multiples of 128); `ranks` is how many there really are.
        """
        for problem in self.problems(model, sequence_length, policy=policy, ranks=ranks):
            raise ConfigError(problem.text)

    def problems(
        self, model: ModelConfig, sequence_length: int, *, policy: str = "fp8", ranks: int | None = None
    ) -> tuple[Problem, ...]:
        """Every broken rule; a rule that only makes sense once another one holds is not tried."""
        return own_problems(self, ranks) or model_problems(self, model, sequence_length, fp8=policy == "fp8")

    def bubble_fraction(self, *, backward_per_forward: float = 2.0) -> float:
        """Idle share of a step by formula (training.planning.bubble_formula): equal stages, free communication."""
        return formula_fraction(
            self.schedule, self.pipeline, self.micro_batches, backward_per_forward=backward_per_forward
        )
