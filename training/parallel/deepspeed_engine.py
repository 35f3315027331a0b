"""Hands a module to DeepSpeed, with the configuration that a plan needs.

Relies on DeepSpeed 0.19: an engine that finds a module of class MoE reduces the optimizer groups marked "moe" over the
process group of their "name"; an MoE's own `set_deepspeed_parallelism` would open groups that exist already.
"""

from __future__ import annotations

from typing import Any

import deepspeed
from deepspeed.moe.layer import MoE
from torch import nn

from training.optim import OptimizerSettings, build_optimizer
from training.parallel.groups import quiet
from training.parallel.plan import ParallelPlan
from training.precision import FP32, PrecisionPolicy

_REDUCE_ELEMENTS = 1 << 26
"""DeepSpeed allocates a buffer of so many elements for ZeRO's reductions, however small the model."""


def start_deepspeed(
    module: Any,
    plan: ParallelPlan,
    policy: PrecisionPolicy,
    settings: OptimizerSettings,
    *,
    clipping: float,
    grid: Any = None,
) -> Any:
    """The engine for `module`, whose values are its first weights; `grid` for one that is no pipeline. Collective."""
    experts_here = sum(_of_experts(parameter) for parameter in module.parameters())
    if experts_here:
        module.experts_here = _ExpertsHere(experts_here)
    with quiet():
        engine, *_ = deepspeed.initialize(
            model=module,
            optimizer=build_optimizer(_parameter_groups(module, settings), settings, policy),
            config=_configuration(plan, policy, clipping=clipping),
            dist_init_required=False,
            mpu=grid,
        )
    return engine


class _ExpertsHere(MoE):
    """A sign for DeepSpeed that some parameters of this rank belong to experts. Ours are not its MoE layers, whose
    gate, dispatch and capacity would come along with the constructor."""

    def __init__(self, num_experts: int) -> None:
        nn.Module.__init__(self)
        self.num_experts = num_experts

    def set_deepspeed_parallelism(self, use_data_before_expert_parallel_: bool = False) -> None:
        return None


def _configuration(plan: ParallelPlan, policy: PrecisionPolicy, *, clipping: float) -> dict[str, Any]:
    low_precision = policy.parameter is not FP32
    return {
        "train_batch_size": plan.global_sequences,
        "train_micro_batch_size_per_gpu": plan.micro_sequences,
        "gradient_accumulation_steps": plan.micro_batches,
        "gradient_clipping": clipping,  # DeepSpeed's default is 1.0
        "bf16": {"enabled": low_precision, "immediate_grad_update": True},
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
        "zero_optimization": {
            "stage": plan.zero_stage,
            "reduce_bucket_size": _REDUCE_ELEMENTS,
            "allgather_bucket_size": _REDUCE_ELEMENTS,
            "overlap_comm": False,
        },
        # Off: DualPipeV knows no partitioned activations, and both schedules shall send the same.
        "pipeline": {"pipe_partitioned": False, "grad_partitioned": False},
        "zero_allow_untested_optimizer": True,  # ours
        "steps_per_print": None,
    }


def _parameter_groups(module: nn.Module, settings: OptimizerSettings) -> list[dict[str, Any]]:
    """By whether they belong to experts of this rank, and whether they decay: vectors (norms) do not."""
    groups: dict[tuple[str | None, bool], list[Any]] = {}
    for parameter in module.parameters():
        name = parameter.group_name if _of_experts(parameter) else None
        groups.setdefault((name, parameter.dim() > 1), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": settings.weight_decay if decays else 0.0}
        | ({} if name is None else {"moe": True, "name": name})
        for (name, decays), parameters in groups.items()
    ]


def _of_experts(parameter: Any) -> bool:
    """Its gradients are summed over the ranks that hold the same experts instead of the data axis."""
    return not getattr(parameter, "allreduce", True)
