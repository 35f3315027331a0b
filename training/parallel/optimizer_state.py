"""What a checkpoint must hold of the optimiser: FP32 master copy and moments of each parameter, cut as on this rank.

Relies on DeepSpeed 0.19: `deepspeed.utils.safe_get_full_*` put a parameter together from the ranks that share its
optimiser state, `safe_set_*` take this rank's part of it. BF16_Optimizer, DeepSpeedZeroOptimizer and ZeRO-3's name
their flat FP32 partitions as in `_masters`; the first two link states to parameters in
`_lazy_init_hp_params_optimizer_state()`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
import torch.distributed as dist
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)
from torch import Tensor, nn

from training.errors import TrainingError, Unavailable
from training.model.hf_names import Shard, named_shards
from training.optim import MOMENTS
from training.parallel.context import Axis, ParallelContext
from training.parallel.groups import local_device
from training.parallel.shards import Part

MASTER, BUFFER = "master", "buffer"

Read = Callable[[Part, str], Tensor]
"""The piece of `part` that this rank holds, of the kind "master", "exp_avg", "exp_avg_sq" or "buffer"."""


@dataclass(frozen=True, slots=True)
class StateShard:
    """One tensor of the model's file, as far as this rank holds it."""

    part: Part
    tensors: Mapping[str, Tensor]
    """By kind: "master" and the moments, or "buffer" alone. Shaped as `part`'s piece, on the rank's device."""


class OptimizerState:
    """Access to the state of one engine's optimiser."""

    def __init__(self, deepspeed_optimizer: Any, module: nn.Module, context: ParallelContext, *, kind: str) -> None:
        """`kind`: as in OptimizerSettings."""
        self._optimizer, self._module, self._context = deepspeed_optimizer, module, context
        self._moments = MOMENTS[kind]
        self._start()

    def shards(self) -> Iterator[StateShard]:
        """Every parameter and kept buffer, each piece on exactly one of all ranks; ranks get about equally much.

        Collective: all ranks must iterate to the end.
        """
        given = {axis.name: [0] * axis.size for axis in (self._context.data, self._context.expert_data)}
        # The largest first: they even out best.
        for shards in sorted(_by_tensor(self._module), key=lambda shards: -_elements(shards[0].tensor)):
            if self._is_copy(shards[0].tensor):
                continue
            whole = self._gathered(shards[0].tensor)
            axis = self._replicas(shards[0].tensor)
            owner = given[axis.name].index(min(given[axis.name]))
            given[axis.name][owner] += _elements(shards[0].tensor)
            if axis.rank == owner:
                for shard in shards:
                    yield StateShard(shard.part, {kind: shard.of(tensor) for kind, tensor in whole.items()})

    def load(self, read: Read, *, steps: int) -> None:
        """Take over a state that `steps` optimiser steps led to, and the weights with it. Collective.

        `read` is asked on every rank for what the rank holds. Raise what it raises; Unavailable on the other ranks.
        """
        failure: TrainingError | None = None
        try:
            self._take_over(read, steps)
        except TrainingError as error:
            failure = error  # the others must not wait for this rank in the collective below
        failed = torch.zeros(dist.get_world_size(), device=local_device())
        failed[dist.get_rank()] = failure is not None
        dist.all_reduce(failed)
        if failure is not None:
            raise failure
        if failed.any():
            raise Unavailable(f"rank {int(failed.argmax())} could not load the state")
        _spread_weights(self._optimizer)

    def _take_over(self, read: Read, steps: int) -> None:
        for master in _masters(self._optimizer):
            self._optimizer.optimizer.state[master]["step"] = steps
        for shards in _by_tensor(self._module):
            tensor = shards[0].tensor
            if not isinstance(tensor, nn.Parameter):
                shards[0].local.copy_(read(shards[0].part, BUFFER))
            elif getattr(tensor, "_hp_mapping", self) is not None:  # None: other data ranks keep its state
                for kind in (MASTER, *self._moments):
                    _set(tensor, kind, _joined(shards, kind, read))

    def _start(self) -> None:
        """Make the moments and link them now: DeepSpeed would link all groups' when the first group has stepped."""
        for master in _masters(self._optimizer):
            self._optimizer.optimizer.start(master)
        if hasattr(self._optimizer, "_lazy_init_hp_params_optimizer_state"):
            self._optimizer._lazy_init_hp_params_optimizer_state()

    def _is_copy(self, tensor: Tensor) -> bool:
        """Whether another stage or tensor rank holds the same."""
        uncut = not getattr(tensor, "tensor_model_parallel", False)
        return getattr(tensor, "ds_pipe_replicated", False) or (uncut and self._context.tensor.rank > 0)

    def _replicas(self, tensor: Tensor) -> Axis:
        """The ranks that hold the same piece."""
        return self._context.data if getattr(tensor, "allreduce", True) else self._context.expert_data

    def _gathered(self, tensor: Tensor) -> dict[str, Tensor]:
        if not isinstance(tensor, nn.Parameter):
            return {BUFFER: tensor.detach()}
        states = {kind: safe_get_full_optimizer_state(tensor, kind) for kind in self._moments}
        dtypes = {kind: self._moment_dtype(kind) for kind in states}
        moments = {kind: state.to(dtypes[kind]) for kind, state in states.items()}  # came as FP32, exactly
        return {MASTER: safe_get_full_fp32_param(tensor), **moments}

    def _moment_dtype(self, kind: str) -> torch.dtype:
        state = self._optimizer.optimizer.state[_masters(self._optimizer)[0]]
        dtype: torch.dtype = state[kind].dtype
        return dtype


def _by_tensor(module: nn.Module) -> Iterator[list[Shard]]:
    """The shards that lie in one parameter or buffer, together."""
    for _, group in groupby(named_shards(module), key=lambda shard: shard.parameter_name):
        yield list(group)


def _elements(tensor: Any) -> int:
    return int(getattr(tensor, "ds_numel", tensor.numel()))  # ZeRO-3 leaves a parameter empty between uses


def _masters(optimizer: Any) -> list[Tensor]:
    for name in ("fp32_groups_flat_partition", "single_partition_of_fp32_groups", "fp32_partitioned_groups_flat"):
        if hasattr(optimizer, name):
            partitions: list[Tensor] = getattr(optimizer, name)
            return partitions
    raise TypeError(f"{type(optimizer).__name__}: an optimizer of DeepSpeed that this file does not know")


def _joined(shards: list[Shard], kind: str, read: Read) -> Tensor:
    """A tensor shaped as the parameter on this rank, put together from the pieces that lie in it."""
    parameter = shards[0].tensor
    shape = getattr(parameter, "ds_shape", parameter.shape)
    joined = torch.empty(shape, dtype=torch.float32, device=parameter.device)
    for shard in shards:
        shard.of(joined).copy_(read(shard.part, kind))
    return joined


def _set(parameter: Any, kind: str, value: Tensor) -> None:
    if hasattr(parameter, "ds_id"):  # ZeRO-3, which takes no whole tensor that its ranks cannot share out evenly
        width = parameter.ds_tensor.numel()
        start = width * parameter._z3_optimizer._get_param_partition_rank(parameter)
        part = torch.zeros(width, device=value.device)
        mine = value.flatten()[start : start + width]
        part[: mine.numel()] = mine
        if kind == MASTER:
            safe_set_local_fp32_param(parameter, part)
        else:
            safe_set_local_optimizer_state(parameter, part, kind)
    elif kind == MASTER:
        safe_set_full_fp32_param(parameter, value)
    else:
        safe_set_full_optimizer_state(parameter, value, kind)


def _spread_weights(optimizer: Any) -> None:
    """From the master partitions to the weights of all data ranks, as at the end of a step."""
    if hasattr(optimizer, "update_lp_params"):
        optimizer.update_lp_params()
        return
    for sub_group in range(len(optimizer.fp16_groups)):
        optimizer._reassign_or_swap_out_partitioned_parameters(sub_group)
    if optimizer.persistent_parameters:
        optimizer.persistent_parameters[0].all_gather(optimizer.persistent_parameters)
