"""Builds the engine that a plan asks for, with first weights that do not depend on the plan."""

from __future__ import annotations

from functools import partial
from typing import Any

from training.model.config import ModelConfig
from training.model.decoder import loss
from training.model.initialise import initialise
from training.model.layers import layer_specs
from training.optim import OptimizerSettings
from training.parallel.context import ParallelContext
from training.parallel.deepspeed_engine import start_deepspeed
from training.parallel.engine import Engine
from training.parallel.gradients import StepGate
from training.parallel.groups import build_grid, local_device
from training.parallel.measured_costs import measured_costs
from training.parallel.partition import contiguous_partition, layer_costs
from training.parallel.pipeline import pipeline_module
from training.parallel.pipelined import PipelinedEngine
from training.parallel.plain import Layers, PlainEngine
from training.parallel.plan import ParallelPlan
from training.parallel.timings import OnInstruction, StepClock
from training.precision import PrecisionPolicy


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
    pipelined = plan.zero_stage == 1
    if pipelined:
        costs = layer_costs(config, sequence_length)
        if measure_layers:
            costs = measured_costs(layers, arguments, plan.micro_sequences, sequence_length)
        module = pipeline_module(layers, arguments, plan, contiguous_partition(costs, plan.stages), loss_of)
    else:
        module = Layers(layers, arguments)
    initialise(module, config, seed)
    grid = None if pipelined else build_grid(plan)
    engine = start_deepspeed(module, plan, policy, optimizer, clipping=gradient_clipping, grid=grid)
    options: dict[str, Any] = {
        "clock": StepClock(on_instruction),
        "gate": StepGate(context, clipping=gradient_clipping, device=local_device()),
        "settings": optimizer,
    }
    if pipelined:
        return PipelinedEngine(engine, plan, context, **options)
    return PlainEngine(engine, plan, context, loss=loss_of, **options)


def _loss(outputs: Any, labels: Any, *, config: ModelConfig, context: ParallelContext) -> Any:
    return loss(outputs, labels, config, context)
