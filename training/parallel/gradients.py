"""FP32 gradients under DeepSpeed: where they accumulate, their norm, and what all ranks agree on before a step.

Relies on DeepSpeed 0.19. BF16_Optimizer: `bf16_groups` and `fp32_groups_gradients` hold parameters and flat views of
their FP32 gradients in the same order, all-reduced whole over the data axis; `fp32_groups_gradient_flat_partition` is
this rank's part; `_hp_mapping` says which part of a parameter that is. DeepSpeedZeroOptimizer (ZeRO-1 in FP32, ZeRO-2):
of the parameters in `params_in_partition[group]`, `averaged_gradients[group]` are this rank's pieces; it clips by what
`scaled_global_norm()` returns. ZeRO-3's: the same of `fp16_groups[group]`; it clips by `_get_norm_groups()`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
import torch.distributed as dist
from deepspeed.runtime.bf16_optimizer import BF16_Optimizer
from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3

from training.errors import NumericsError
from training.fp8.finite import WATCH, raise_if_non_finite
from training.parallel.context import ParallelContext


def accumulate_in_place(optimizer: BF16_Optimizer) -> None:
    """Let every weight name its FP32 gradient, so that a matmul adds to it and no BF16 copy rounds it first.

    `_hp_grad` is what DeepSpeed sets when it first adds a BF16 gradient; its `safe_get_full_grad` reads it.
    """
    for parameters, gradients in zip(optimizer.bf16_groups, optimizer.fp32_groups_gradients, strict=True):
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter._hp_grad = gradient
            parameter.fp32_gradient = gradient.view(parameter.shape)


@contextmanager
def deferred_complaints() -> Iterator[None]:
    """Inside, an FP8 operand that is not finite becomes NaN and is told by `StepGate.check`, on a CPU as on a GPU: a
    rank that raised in the middle of a step would leave its peers waiting."""
    before = WATCH.deferred_on
    WATCH.deferred_on = before | {"cpu"}
    try:
        yield
    finally:
        WATCH.deferred_on = before


class StepGate:
    """Stands before each optimiser step: checks and clips the gradients by a norm over all parameters of all ranks.

    DeepSpeed's own norm is not used. It sums in FP32 in the order in which stages hold parameters, so clipping would
    make losses depend on the pipeline's cut; it waits for ever in a stage without experts when another has some; and a
    step whose norm is not finite is skipped in silence.
    """

    def __init__(self, context: ParallelContext, *, clipping: float, device: Any) -> None:
        self._context, self._clipping, self._device = context, clipping, device
        self._probe: Any = 0.0
        self.gradient_norm = 0.0
        """Before clipping; that of the last step checked."""

    def attach(self, optimizer: Any) -> None:
        """Make `optimizer`, one of those that the module docstring names, step by this gate's norm."""
        if isinstance(optimizer, BF16_Optimizer):
            optimizer.step = MethodType(self._step_bf16, optimizer)
        elif isinstance(optimizer, DeepSpeedZeroOptimizer_Stage3):
            optimizer._get_norm_groups = lambda: [self._norm_as_tensor()]
        else:
            optimizer.scaled_global_norm = self._norm_as_tensor

    def probe(self, gradients: Iterable[Any]) -> None:
        """Look at this rank's gradients before they are summed over other ranks: afterwards NaN is everywhere."""
        self._probe = sum(
            (gradient.sum(dtype=torch.float32) for gradient in gradients), start=torch.zeros((), device=self._device)
        )

    def check(self, optimizer: Any, *, loss: Any, step: int) -> None:
        """Set the norm, the same on all ranks. `loss`: this rank's, 0 where none is computed. Collective over all.

        Raise NumericsError, with the same text on all ranks, when one has a loss, a gradient or an FP8 operand that is
        not finite.
        """
        mine = {"loss": loss, "gradient": self._probe, "gradient norm": self._sum_of_squares(optimizer)}
        operands = _fp8_complaint()
        flag = math.nan if operands else 0.0
        table = torch.zeros((4, dist.get_world_size()), dtype=torch.float64, device=self._device)
        table[:, dist.get_rank()] = torch.stack([torch.as_tensor(value).to(table) for value in (*mine.values(), flag)])
        dist.all_reduce(table)
        *_, squares, _ = rows = table.tolist()
        if not all(math.isfinite(value) for row in rows for value in row):
            complaints = [f"{what} is not finite" for what, value in mine.items() if not math.isfinite(value)]
            raise NumericsError(f"step {step}: {_from_all_ranks([*complaints, *operands])}")
        self.gradient_norm = _rounded_fp32(math.sqrt(math.fsum(squares)))

    def _sum_of_squares(self, optimizer: Any) -> Any:
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        pieces = _pieces_bf16 if isinstance(optimizer, BF16_Optimizer) else _pieces_zero
        for parameter, gradient in pieces(optimizer):
            if self._counts(parameter):
                # In FP64 the sum's order shows in the 16th digit only, and is gone once rounded to FP32.
                total += torch.linalg.vector_norm(gradient, dtype=torch.float64) ** 2
        return total

    def _counts(self, parameter: Any) -> bool:
        """Whether this rank adds `parameter` to the norm: each is counted once over the whole world."""
        if getattr(parameter, "ds_pipe_replicated", False):
            return False
        return self._context.tensor.rank == 0 or bool(getattr(parameter, "tensor_model_parallel", False))

    def _step_bf16(self, optimizer: BF16_Optimizer, closure: object = None) -> None:
        coefficient = self._coefficient()
        for master, gradient in zip(
            optimizer.fp32_groups_flat_partition, optimizer.fp32_groups_gradient_flat_partition, strict=True
        ):
            master.grad = gradient.mul_(coefficient) if coefficient < 1.0 else gradient
        optimizer.overflow, optimizer._global_grad_norm = False, self.gradient_norm
        optimizer.optimizer.step()
        optimizer._lazy_init_hp_params_optimizer_state()
        optimizer.update_lp_params()
        optimizer.clear_hp_grads()

    def _norm_as_tensor(self) -> Any:
        return torch.tensor(self.gradient_norm, device=self._device)

    def _coefficient(self) -> float:
        if self._clipping == 0.0:
            return 1.0
        return _rounded_fp32(min(1.0, self._clipping / (self.gradient_norm + 1e-6)))


def _pieces_bf16(optimizer: BF16_Optimizer) -> Iterator[tuple[Any, Any]]:
    """Each parameter with that part of its gradient that this rank's partition holds."""
    for parameters, gradients in zip(optimizer.bf16_groups, optimizer.fp32_groups_gradients, strict=True):
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if parameter._hp_mapping is not None:
                part = parameter._hp_mapping.lp_fragment_address
                yield parameter, gradient.narrow(0, part.start, part.numel)


def _pieces_zero(optimizer: Any) -> Iterator[tuple[Any, Any]]:
    third = isinstance(optimizer, DeepSpeedZeroOptimizer_Stage3)
    for group, parameters in enumerate(optimizer.fp16_groups if third else optimizer.params_in_partition):
        pieces = (piece for piece in optimizer.averaged_gradients[group] if not getattr(piece, "_zero_padding", False))
        yield from zip(parameters, pieces, strict=False)  # the last piece may be padding too


def _fp8_complaint() -> list[str]:
    try:
        raise_if_non_finite()
    except NumericsError as error:
        return [str(error)]
    return []


def _from_all_ranks(complaints: list[str]) -> str:
    by_rank: list[list[str]] = [[]] * dist.get_world_size()
    dist.all_gather_object(by_rank, complaints)
    return "; ".join(f"rank {rank}: {', '.join(texts)}" for rank, texts in enumerate(by_rank) if texts)


def _rounded_fp32(value: float) -> float:
    return float(torch.tensor(value, dtype=torch.float32))
