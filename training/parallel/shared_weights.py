"""Weights with several uses (the embedding: in front, and before multi-token prediction): one FP32 gradient per use.

Summed in the order of the uses, so that the total has the same bits whether one rank computed all of them or each lay
in a stage of its own. Without it, uses and micro-batches would add up in another order with every cut of the pipeline.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from deepspeed import comm as dist  # its own calls are counted
from torch import nn

_SINKS = "_gradient_by_use"


@dataclass(slots=True)
class SharedWeight:
    module: nn.Module
    name: str
    uses: int
    """By all stages together."""

    uses_here: Sequence[int]
    group: Any
    """Ranks of the stages that hold the weight; None when this is the only one."""

    sinks: dict[int, Any] = field(default_factory=dict)
    """FP32 gradient by use, of this rank's uses; the first of them is the parameter's own."""

    @property
    def parameter(self) -> Any:
        return self.module.get_parameter(self.name)

    def open_sinks(self, own: Any) -> None:
        """`own`: FP32, shaped as the parameter; where its gradient is in the end."""
        self.sinks = {use: own if use == self.uses_here[0] else torch.zeros_like(own) for use in self.uses_here}
        by_name = self.module.__dict__.setdefault(_SINKS, {})
        by_name[self.name] = self.sinks

    def total(self) -> Any:
        """The sum over all uses of all stages, left in the parameter's own gradient; the others are cleared.

        Collective over the stages that hold the weight.
        """
        own, *others = self.sinks.values()
        if self.group is None or self.uses == 2:  # of two terms the order does not matter
            for other in others:
                own.add_(other)
            if self.group is not None:
                dist.all_reduce(own, group=self.group)
        else:
            own.copy_(self._in_order())
        for other in others:
            other.zero_()
        return own

    def _in_order(self) -> Any:
        some = self.sinks[self.uses_here[0]]
        total = torch.zeros_like(some)
        for use in range(self.uses):
            term = self.sinks[use].clone() if use in self.sinks else torch.zeros_like(some)
            dist.all_reduce(term, group=self.group)  # one rank's is not zero: exact in any order
            total.add_(term)
        return total


def noting_use(call: Callable[[nn.Module, Any], Any], use: int) -> Callable[[nn.Module, Any], Any]:
    """`call`, with the shared module's weights pointing at the gradient of this use while their graph is built."""

    def used(module: nn.Module, state: Any) -> Any:
        for name, sinks in module.__dict__.get(_SINKS, {}).items():
            module.get_parameter(name).fp32_gradient = sinks[use]
        return call(module, state)

    return used
