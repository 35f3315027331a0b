"""Builds the engine that a plan asks for, with first weights that do not depend on the plan.

Relies on DeepSpeed 0.19: an engine that finds a module of class MoE reduces the optimizer groups marked "moe" over the
process group of their "name"; an MoE's own `set_deepspeed_parallelism` would open groups that exist already.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import deepspeed
from deepspeed.moe.layer import MoE
from torch import nn

from training.model.config import ModelConfig
from training.model.decoder import loss
from training.model.initialise import initialise
from training.model.layers import layer_specs
from training.optim import OptimizerSettings, build_optimizer
from training.parallel.context import ParallelContext
from training.parallel.engine import Engine
from training.parallel.gradients import StepGate
from training.parallel.groups import build_grid, local_device, quiet
from training.parallel.measured_costs import measured_costs
from training.parallel.partition import contiguous_partition, layer_costs
from training.parallel.pipeline import pipeline_module, shared_weights
from training.parallel.pipelined import PipelinedEngine
from training.parallel.plain import Layers, PlainEngine
from training.parallel.plan import ParallelPlan
from training.parallel.timings import OnInstruction, StepClock
from training.precision import FP32, PrecisionPolicy

_REDUCE_ELEMENTS = 1 << 26
"""DeepSpeed allocates a buffer of so many elements for ZeRO's reductions, however small the model."""


def build_engine(
    config: ModelConfig,
    plan: ParallelPlan,
    policy: PrecisionPolicy,
    optimizer: OptimizerSettings,
    *,
    context: ParallelContext,
    sequence_length: int,
    seed: int,
    gradient_clipping: float,
    measure_layers: bool = False,
    on_instruction: OnInstruction | None = None,
) -> Engine:
    """`gradient_clipping`: largest norm of all gradients together, 0 for no limit. `measure_layers`: cut the pipeline
    by measured instead of estimated cost; then the cut may differ from one start to the next.

    Collective. Raise ConfigError for a plan that the model cannot follow.
    """
    plan.validate(config, sequence_length, policy=policy.name)
    layers, arguments = layer_specs(config), (config, policy, context)
    loss_of = partial(_loss, config=config, context=context)
    grid = None
    if plan.zero_stage == 1:
        costs = (
            measured_costs(layers, arguments, micro_sequences=plan.micro_sequences, sequence_length=sequence_length)
            if measure_layers
            else layer_costs(config, sequence_length)
        )
        module = pipeline_module(layers, arguments, plan, contiguous_partition(costs, plan.stages), loss_of)
        module.shared_weights = shared_weights(module, layers)
    else:
        module, grid = Layers(layers, arguments), build_grid(plan)
    initialise(module, config, seed)
    engine = _deepspeed_engine(module, config, plan, policy, optimizer, clipping=gradient_clipping, grid=grid)
    parts: dict[str, Any] = {
        "clock": StepClock(on_instruction),
        "gate": StepGate(context, clipping=gradient_clipping, device=local_device()),
        "settings": optimizer,
    }
    if plan.zero_stage == 1:
        return PipelinedEngine(engine, plan, context, **parts)
    return PlainEngine(engine, plan, context, loss=loss_of, **parts)


def _loss(outputs: Any, labels: Any, *, config: ModelConfig, context: ParallelContext) -> Any:
    return loss(outputs, labels, config, context)


class _ExpertsHere(MoE):
    """A sign for DeepSpeed that some parameters of this rank belong to experts. Ours are not its MoE layers, whose
    gate, dispatch and capacity would come along with the constructor."""

    def __init__(self, num_experts: int) -> None:
        nn.Module.__init__(self)
        self.num_experts = num_experts

    def set_deepspeed_parallelism(self, use_data_before_expert_parallel_: bool = False) -> None:
        return None


def _deepspeed_engine(
    module: Any,
    config: ModelConfig,
    plan: ParallelPlan,
    policy: PrecisionPolicy,
    optimizer: OptimizerSettings,
    *,
    clipping: float,
    grid: Any,
) -> Any:
    if any(_of_experts(parameter) for parameter in module.parameters()):
        module.experts_here = _ExpertsHere(config.n_routed_experts)
    groups = parameter_groups(module, optimizer)
    with quiet():
        engine, *_ = deepspeed.initialize(
            model=module,
            optimizer=build_optimizer(groups, optimizer, policy),
            config=deepspeed_config(plan, policy, clipping=clipping),
            dist_init_required=False,
            mpu=grid,
        )
    return engine


def deepspeed_config(plan: ParallelPlan, policy: PrecisionPolicy, *, clipping: float) -> dict[str, Any]:
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


def parameter_groups(module: nn.Module, settings: OptimizerSettings) -> list[dict[str, Any]]:
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
