"""An Engine on DeepSpeed's plain engine, for ZeRO-2 and ZeRO-3; one stage.

Gradients are BF16 within a micro-batch (DeepSpeed takes them from autograd as they come, layer by layer) and FP32 over
micro-batches and ranks.

Relies on DeepSpeed 0.19: `set_gradient_accumulation_boundary()` before each pass says whether a step follows; ZeRO-3
gathers the parameters that the module about to run owns, and only when it is run by its own call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from training.model.layers import LayerSpec
from training.parallel.engine import Batches, Engine
from training.parallel.groups import local_device


class Layers(nn.Module):
    """The layers one behind the other. A further use of a shared module is a module too: ZeRO-3 asks what it owns."""

    def __init__(self, specs: Sequence[LayerSpec], arguments: tuple[Any, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        tied: dict[str, nn.Module] = {}
        for spec in specs:
            shared = None if spec.tied_key is None else tied.get(spec.tied_key)
            layer = spec.module(*arguments, **spec.arguments) if shared is None else shared
            if spec.tied_key is not None:
                tied[spec.tied_key] = layer
            self.layers.append(layer if spec.forward is None else _Use(layer, spec.forward))

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens int64 [batch, sequence] -> what the loss takes"""
        state: Any = tokens
        for layer in self.layers:
            state = layer(state)
        result: Tensor = state
        return result


class _Use(nn.Module):
    def __init__(self, shared: nn.Module, call: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self._shared, self._call = [shared], call  # in a list: not a part of this module, whose parameters are its own
        for name, parameter in shared.named_parameters():
            self.register_parameter(name, parameter)

    def forward(self, state: Any) -> Any:
        return self._call(self._shared[0], state)


class PlainEngine(Engine):
    def __init__(self, *arguments: Any, loss: Callable[[Any, Any], Any], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._loss = loss

    def _run_step(self, batches: Batches) -> float:
        self._engine.train()
        total = torch.zeros((), device=local_device())
        for index in range(self.micro_batches):
            last = index == self.micro_batches - 1
            self._engine.set_gradient_accumulation_boundary(last)
            with self.clock.during("forward"):
                loss = self._forward(batches)
            with self.clock.during("backward"):
                self._engine.backward(loss)
            total += loss.detach()
            if last:
                self._check(total)
            with self.clock.during("optimizer"):
                self._engine.step()
        return self._mean(total / self.micro_batches)

    def _run_evaluation(self, batches: Batches, micro_batches: int) -> float:
        self._engine.eval()
        with torch.no_grad():
            losses = [self._forward(batches) for _ in range(micro_batches)]
        return self._mean(torch.stack(losses).mean())

    def _forward(self, batches: Batches) -> Tensor:
        tokens, labels = (part.to(local_device()) for part in next(batches))
        loss: Tensor = self._loss(self._engine(tokens), labels)
        return loss

    def _mean(self, loss: Tensor) -> float:
        """Over the data axis."""
        if self.context.data.size > 1:
            dist.all_reduce(loss, group=self.context.data.group)
        return float(loss) / self.context.data.size
