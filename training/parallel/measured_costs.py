"""Times every layer of the model on the spot, to cut the pipeline by what layers really take here."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from training.model.layers import LayerSpec
from training.parallel.groups import local_device

REPEATS = 3


def measured_costs(
    layers: Sequence[LayerSpec], arguments: tuple[Any, ...], micro_sequences: int, sequence_length: int
) -> list[float]:
    """Seconds of a forward and a backward pass by layer, as rank 0 saw them. Collective: all ranks run every layer, one
    after the other, so that a layer's own collectives find their peers; memory for one layer at a time."""
    device = local_device()
    state: Any = torch.zeros((micro_sequences, sequence_length), dtype=torch.int64, device=device)
    costs = []
    for layer in layers:
        module = layer.module(*arguments, **layer.arguments).to(device)
        for parameter in module.parameters():
            torch.nn.init.constant_(parameter, 0.01)  # it only has to be finite
        call = layer.forward or type(module).__call__
        runs = [_timed(call, module, state) for _ in range(REPEATS)]
        costs.append(min(seconds for seconds, _ in runs))
        state = runs[0][1]
    agreed = torch.tensor(costs, dtype=torch.float64, device=device)
    dist.broadcast(agreed, src=0)
    return [float(cost) for cost in agreed.tolist()]


def _timed(call: Callable[[Any, Any], Any], module: Any, state: Any) -> tuple[float, Any]:
    """Seconds of one forward and backward pass, and the state it leaves, cut from its graph."""
    _wait()
    begin_s = time.perf_counter()
    result = call(module, state)
    hidden: Tensor = result[0] if isinstance(result, tuple) else result
    hidden.backward(torch.ones_like(hidden))
    _wait()
    seconds = time.perf_counter() - begin_s
    if not isinstance(result, tuple):
        return seconds, result
    return seconds, (hidden.detach().requires_grad_(), *result[1:])


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
