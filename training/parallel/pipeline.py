"""The model's layers as DeepSpeed's pipeline modules, cut into stages on one rank or many.

Relies on DeepSpeed 0.19: `_partition_layers` sets the local bounds and `parts`, and nothing else depends on how;
`tied_comms` holds the ranks' group by tied key; `DualPipeVModule` holds two stages a rank, between `phase_bounds`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from deepspeed.pipe import DualPipeVModule, LayerSpec, PipelineModule, TiedLayerSpec
from deepspeed.runtime.pipe.topology import PipeModelDataParallelTopology
from torch import nn

from training.model import layers as model
from training.parallel.groups import quiet
from training.parallel.plan import DUALPIPEV, ParallelPlan
from training.parallel.shared_weights import SharedWeight, noting_use

SHARED_WEIGHT = "weight"
"""The one parameter of a module with a tied key."""


class OneForwardOneBackward(PipelineModule):
    """Takes its boundaries from outside."""

    def __init__(self, specs: Sequence[Any], boundaries: Sequence[int], **options: Any) -> None:
        self.parts = list(boundaries)  # first: the constructor partitions
        super().__init__(specs, **options)

    def _partition_layers(self, method: str) -> None:
        self._set_bounds(start=self.parts[self.stage_id], stop=self.parts[self.stage_id + 1])


class DualPipeV(OneForwardOneBackward, DualPipeVModule):
    def _partition_layers(self, method: str) -> None:
        self.num_stages *= 2
        super()._partition_layers(method)
        mirror = self.num_stages - 1 - self.stage_id
        self.phase_bounds = [(self._local_start, self._local_stop), (self.parts[mirror], self.parts[mirror + 1])]


def pipeline_module(
    layers: Sequence[model.LayerSpec],
    arguments: tuple[Any, ...],
    plan: ParallelPlan,
    boundaries: Sequence[int],
    loss: Callable[[Any, Any], Any],
) -> Any:
    """Build this rank's layers, each as `spec.module(*arguments, **spec.arguments)`.

    `boundaries`: of `plan.stages` stages. `loss`: of the last layer's output and the labels, an FP32 scalar.
    """
    topology = PipeModelDataParallelTopology(num_pp=plan.pipeline, num_mp=plan.tensor, num_dp=plan.data)
    module_class = DualPipeV if plan.schedule == DUALPIPEV else OneForwardOneBackward
    # Its constructor broadcasts tied weights: in the eyes of autograd they would be results of that, and no leaves.
    with quiet(), torch.no_grad():
        module = module_class(_specs(layers, arguments), boundaries, topology=topology, loss_fn=loss)
    module.shared_weights = _shared_weights(module, layers)
    return module


def layers_here(module: Any) -> list[int]:
    """Indices of the layers on this rank."""
    bounds = getattr(module, "phase_bounds", [(module._local_start, module._local_stop)])
    return [index for start, stop in bounds for index in range(start, stop)]


def _shared_weights(module: Any, layers: Sequence[model.LayerSpec]) -> list[SharedWeight]:
    """This rank's weights that have several uses in the model, in the same order on all ranks."""
    here = set(layers_here(module))
    shared = []
    for key in sorted({layer.tied_key for layer in layers if layer.tied_key is not None}):
        uses = [index for index, layer in enumerate(layers) if layer.tied_key == key]
        uses_here = [use for use, index in enumerate(uses) if index in here]
        if uses_here and len(uses) > 1:
            tie = module.tied_comms.get(key)
            group = tie["group"] if tie is not None and len(tie["ranks"]) > 1 else None
            owner = module.tied_modules[key]
            shared.append(SharedWeight(owner, SHARED_WEIGHT, uses=len(uses), uses_here=uses_here, group=group))
    return shared


def _specs(layers: Sequence[model.LayerSpec], arguments: tuple[Any, ...]) -> list[Any]:
    specs = []
    uses: Counter[str] = Counter()
    for layer in layers:
        if layer.tied_key is None:
            specs.append(LayerSpec(layer.module, *arguments, **layer.arguments))
            continue
        call = noting_use(layer.forward or nn.Module.__call__, use=uses[layer.tied_key])
        uses[layer.tied_key] += 1
        specs.append(
            TiedLayerSpec(
                layer.tied_key,
                layer.module,
                *arguments,
                forward_fn=call,
                tied_weight_attr=[SHARED_WEIGHT],
                **layer.arguments,
            )
        )
    return specs
