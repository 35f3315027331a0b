"""AdamW and SGD over the flat FP32 master partitions that DeepSpeed hands out. All arithmetic in FP32.

The moments are kept in the table's "optimizer.moments" (BF16, as in the DeepSeek-V3 report, section 3.3), rounded to
the nearest after each step. DeepSpeed's own BF16 moments also make the master copy BF16, hence this optimiser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from training.errors import require
from training.matmul import torch_dtype
from training.precision import BF16, PrecisionPolicy

KINDS = ("adamw", "sgd")
_CHUNK_ELEMENTS = 1 << 24
"""Bounds the FP32 temporaries of a step: five of 64 MB, whatever the size of the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerSettings:
    kind: str = "adamw"
    """"adamw" or "sgd" (plain, without momentum)."""

    learning_rate: float
    weight_decay: float = 0.0
    """Decoupled (arXiv 1711.05101), in both kinds; norms and other vectors are spared."""

    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    router_bias_speed: float = 0.001
    """Step of the bias that balances experts (arXiv 2412.19437, 4.2); 0 leaves it alone."""

    def __post_init__(self) -> None:
        require(self.kind in KINDS, "optimizer.kind", self.kind, f"must be one of {', '.join(KINDS)}")
        require(self.learning_rate >= 0.0, "optimizer.learning_rate", self.learning_rate, "must not be negative")
        require(self.weight_decay >= 0.0, "optimizer.weight_decay", self.weight_decay, "must not be negative")
        require(0.0 <= self.beta1 < 1.0, "optimizer.beta1", self.beta1, "must be in [0, 1)")
        require(0.0 <= self.beta2 < 1.0, "optimizer.beta2", self.beta2, "must be in [0, 1)")
        require(self.epsilon > 0.0, "optimizer.epsilon", self.epsilon, "must be positive")


MOMENTS: Mapping[str, tuple[str, ...]] = {"adamw": ("exp_avg", "exp_avg_sq"), "sgd": ()}
"""What each kind keeps per parameter besides the master copy, under DeepSpeed's names."""


class AdamW(torch.optim.Optimizer):
    """Decoupled weight decay; bias-corrected. A parameter here is one flat FP32 partition with an FP32 gradient."""

    def __init__(self, groups: list[dict[str, Any]], settings: OptimizerSettings, *, moments: Any) -> None:
        """`moments`: torch dtype in which exp_avg and exp_avg_sq are kept."""
        self._settings, self._moments = settings, moments
        super().__init__(groups, {"lr": settings.learning_rate})

    def start(self, parameter: Any) -> dict[str, Any]:
        """The state of `parameter`, made if there is none yet."""
        state: dict[str, Any] = self.state[parameter]
        if not state:
            state["step"] = 0
            for name in MOMENTS["adamw"]:
                state[name] = torch.zeros_like(parameter, dtype=self._moments)
        return state

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:
        for group, parameter in _with_gradient(self.param_groups):
            state = self.start(parameter)
            state["step"] += 1
            tensors = (parameter, parameter.grad, state["exp_avg"], state["exp_avg_sq"])
            for pieces in zip(*(tensor.split(_CHUNK_ELEMENTS) for tensor in tensors), strict=True):
                self._update(*pieces, step=state["step"], rate=group["lr"], decay=group["weight_decay"])

    def _update(
        self, master: Any, gradient: Any, exp_avg: Any, exp_avg_sq: Any, *, step: int, rate: float, decay: float
    ) -> None:
        # Plain products and sums only: fused forms (lerp, addcmul) round otherwise in a vector loop than in its
        # remainder, and where an element lies in the flat partition depends on the plan.
        beta1, beta2 = self._settings.beta1, self._settings.beta2
        mean = exp_avg.float().mul_(beta1).add_(gradient * (1.0 - beta1))
        square = exp_avg_sq.float().mul_(beta2).add_((gradient * gradient).mul_(1.0 - beta2))
        exp_avg.copy_(mean)
        exp_avg_sq.copy_(square)
        # Not in place: with FP32 moments, mean and square are the moments themselves.
        scale = (square / (1.0 - beta2**step)).sqrt_().add_(self._settings.epsilon)
        master.mul_(1.0 - rate * decay)
        master.add_((mean / (1.0 - beta1**step)).div_(scale).mul_(-rate))


class SGD(torch.optim.Optimizer):
    """Without momentum, so without state: what clipping does to a step stays visible in it."""

    def __init__(self, groups: list[dict[str, Any]], settings: OptimizerSettings) -> None:
        super().__init__(groups, {"lr": settings.learning_rate})

    def start(self, parameter: Any) -> dict[str, Any]:
        state: dict[str, Any] = self.state[parameter]
        state.setdefault("step", 0)
        return state

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:
        for group, parameter in _with_gradient(self.param_groups):
            self.start(parameter)["step"] += 1
            parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
            parameter.add_(parameter.grad * -group["lr"])


def build_optimizer(groups: list[dict[str, Any]], settings: OptimizerSettings, policy: PrecisionPolicy) -> AdamW | SGD:
    """`groups` as torch.optim takes them, each with its "weight_decay".

    Raise ConfigError for a beta2 that BF16 moments cannot follow.
    """
    if settings.kind == "sgd":
        return SGD(groups, settings)
    moments = policy.op("optimizer.moments").output
    # BF16 has eight significant bits: times beta2, a value moves only if 1 - beta2 exceeds half its last bit. Closer to
    # one, exp_avg_sq would never shrink again after one large gradient.
    require(
        moments is not BF16 or 1.0 - settings.beta2 >= 2.0**-8,
        "optimizer.beta2",
        settings.beta2,
        "BF16 moments cannot decay so slowly; must be at most 0.996",
    )
    return AdamW(groups, settings, moments=torch_dtype(moments))


def _with_gradient(groups: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], Any]]:
    return ((group, parameter) for group in groups for parameter in group["params"] if parameter.grad is not None)
