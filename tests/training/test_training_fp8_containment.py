"""FP8 tensors reach nothing but casts, views and our own products: torch would multiply them without their scales."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from training.fp8.quantise import quantise_rows  # noqa: E402
from training.matmul import (  # noqa: E402
    attention_core,
    dequantise_from_wire,
    grouped_linear,
    linear,
    quantise_for_wire,
    stored,
    weight_cache,
)
from training.precision import policy  # noqa: E402

pytestmark = pytest.mark.torch

E4M3 = torch.float8_e4m3fn
CASTS = {"aten::_to_copy", "aten::view.dtype"}
VIEWS = {
    f"aten::{name}"
    for name in (
        "alias",
        "detach",
        "select.int",
        "slice.Tensor",
        "squeeze.dim",
        "t",
        "transpose.int",
        "view",
        "_unsafe_view",
    )
}


class Contained(TorchDispatchMode):
    """Fails on every operation that sees an FP8 tensor and is neither a cast nor a view."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        touched = [each for each in tree_leaves((args, kwargs, result)) if isinstance(each, torch.Tensor)]
        if any(each.dtype is E4M3 for each in touched):
            name = func.name()
            assert name in CASTS | VIEWS, f"{name} sees an FP8 tensor"
            self.seen.add(name)
        return result


def run_everything(chosen):
    x, weight = torch.randn(300, 200).requires_grad_(), torch.randn(72, 200).requires_grad_()
    experts = torch.randn(3, 72, 200).requires_grad_()
    q, k, v = (torch.randn(2, 3, 17, width).requires_grad_() for width in (192, 192, 128))
    with weight_cache():
        for _ in range(2):
            linear(x, weight, op="ffn.linear", policy=chosen).float().sum().backward()
            grouped_linear(x, experts, [100, 0, 200], op="moe.expert", policy=chosen).float().sum().backward()
            names = ("mla.query", "mla.key", "mla.value")
            attention_core(q, k, v, op="mla.core", stored_ops=names, policy=chosen, scale=0.1).float().sum().backward()
            stored(x, op="mla.query", policy=chosen).float().sum().backward()
    dequantise_from_wire(*quantise_for_wire(x, chosen), torch.bfloat16)


@pytest.mark.parametrize("options", [{}, {"power_of_two_scales": True}, {"weight_gradient": "bf16"}])
def test_fp8_tensors_are_only_cast_and_viewed(options):
    with Contained() as contained:
        run_everything(policy("fp8", backend="emulate", **options))
    assert "aten::_to_copy" in contained.seen
    assert "aten::view.dtype" in contained.seen


@pytest.mark.parametrize("name", ["bf16", "fp32"])
def test_without_fp8_there_is_no_fp8_tensor(name):
    with Contained() as contained:
        x, weight = torch.randn(300, 200).requires_grad_(), torch.randn(72, 200).requires_grad_()
        linear(x, weight, op="ffn.linear", policy=policy(name)).float().sum().backward()
        stored(x, op="mla.query", policy=policy(name))
    assert contained.seen == set()


def test_the_guard_catches_a_product_of_codes():
    codes = quantise_rows(torch.randn(16, 16), "x").data
    with Contained(), pytest.raises(AssertionError, match="sees an FP8 tensor"):
        codes.abs()
