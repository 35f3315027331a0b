"""What really runs, against the precision table: the dtypes of a forward and a backward pass of the whole model."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from tests.training.rank_functions_model import random_tokens  # noqa: E402
from training.matmul import torch_dtype  # noqa: E402
from training.model.decoder import Decoder, loss  # noqa: E402
from training.model.initialise import initialise  # noqa: E402
from training.model.presets import preset  # noqa: E402
from training.precision import DIAGRAM, FP32, Kind, Op, policy  # noqa: E402

pytestmark = pytest.mark.torch

V3, LLAMA = preset("tiny-v3"), preset("tiny-llama")
IN_THE_OPTIMISER = {name for name, op in DIAGRAM.items() if op.kind is Kind.STATE}


def _recorded(config, policy_name: str) -> dict[tuple[str, str], set[torch.dtype]]:
    """Every dtype seen, by operation and role."""
    seen: dict[tuple[str, str], set[torch.dtype]] = defaultdict(set)

    def observe(op: str, role: str, tensor: object) -> None:
        assert isinstance(tensor, torch.Tensor)
        seen[op, role].add(tensor.dtype)

    chosen = replace(policy(policy_name, backend="emulate"), observer=observe)
    module, tokens = Decoder(config, chosen), random_tokens(config)
    initialise(module, config, 0)
    value = loss(module(tokens[:, :-1]), tokens[:, 1:], config)
    observe("loss", "output", value)
    value.backward()
    return seen


@pytest.fixture(scope="module", params=["fp8", "bf16", "fp32"])
def run(request):
    """The policy's name, and what a model of each family was seen to do."""
    seen = _recorded(V3, request.param)
    for key, dtypes in _recorded(LLAMA, request.param).items():
        seen[key] |= dtypes
    return request.param, seen


def _expected(op: Op) -> dict[str, set[torch.dtype]]:
    """Roles in which an operation must have been seen, and with what."""
    compute, output = {torch_dtype(op.compute)}, {torch_dtype(op.output)}
    match op.kind:
        case Kind.GEMM:
            roles = {"compute": compute, "accumulate": {torch.float32}, "output": output}
            return roles | {"input_gradient": output, "weight_gradient": {torch.float32}}
        case Kind.STORED:
            return {"stored": compute, "output": output}
        case Kind.CORE:
            return {"compute": compute, "accumulate": {torch.float32}, "output": output, "input_gradient": output}
        case Kind.NORM:
            return {"compute": compute, "output": output, "input_gradient": output, "weight_gradient": {torch.float32}}
        case Kind.WIRE:
            # Gradients go back as BF16 both ways where results come in BF16 (section 3.3 of the report).
            return {"wire": {torch_dtype(op.wire)}, "output": output, "input_gradient": output}
        case _:
            return {"output": output, "input_gradient": output}


def test_every_operation_of_the_table_is_seen_and_none_besides(run):
    _, seen = run
    assert {name for name, _ in seen} == set(DIAGRAM) - IN_THE_OPTIMISER


def test_every_dtype_seen_is_the_tables(run):
    policy_name, seen = run
    table = policy(policy_name).table
    expected = {
        (name, role): dtypes
        for name, op in table.items()
        if name not in IN_THE_OPTIMISER
        for role, dtypes in _expected(op).items()
    }
    del expected["loss", "input_gradient"]  # a scalar; where it comes from is the head's output
    assert dict(seen) == expected


def test_weight_gradients_add_up_in_the_tables_precision(run):
    _, seen = run
    gradients = {dtype for (_, role), dtypes in seen.items() if role == "weight_gradient" for dtype in dtypes}
    assert gradients == {torch_dtype(DIAGRAM["optimizer.gradient"].output)}


MOVES = {
    "_to_copy",
    "alias",
    "clone",
    "copy_",
    "detach",
    "select",
    "slice",
    "split",
    "t",
    "transpose",
    "unsqueeze",
    "view",
}
"""What may touch float8: casts and copies. A product of float8 tensors would run without a word, and without scales."""


class _Float8Watch(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        leaves = tree_leaves((args, kwargs, result))
        if any(isinstance(leaf, torch.Tensor) and leaf.dtype is torch.float8_e4m3fn for leaf in leaves):
            self.operations.add(func.overloadpacket.__name__)
        return result


def test_the_watch_sees_a_product_of_float8():
    with _Float8Watch() as watch:
        codes = torch.ones(16, 16).to(torch.float8_e4m3fn)
        torch.mm(codes, codes)
    assert watch.operations == {"_to_copy", "mm"}


@pytest.mark.parametrize("config", [V3, LLAMA], ids=["v3", "llama"])
def test_float8_is_only_cast_and_moved_in_a_whole_forward_and_backward_pass(config):
    module, tokens = Decoder(config, policy("fp8", backend="emulate")), random_tokens(config)
    initialise(module, config, 0)
    with _Float8Watch() as watch:
        loss(module(tokens[:, :-1]), tokens[:, 1:], config).backward()
    assert "_to_copy" in watch.operations
    assert watch.operations <= MOVES, watch.operations - MOVES


@pytest.mark.parametrize("policy_name", ["bf16", "fp32"])
def test_without_the_fp8_table_there_is_no_float8(policy_name):
    module, tokens = Decoder(V3, policy(policy_name)), random_tokens(V3)
    initialise(module, V3, 0)
    with _Float8Watch() as watch:
        loss(module(tokens[:, :-1]), tokens[:, 1:], V3).backward()
    assert watch.operations == set()


def test_the_control_rounds_nothing():
    control = policy("fp32").table.values()
    assert all(op.compute is FP32 and op.output is FP32 and op.wire in (None, FP32) for op in control)


@pytest.mark.parametrize("name", ["tiny-v3", "tiny-llama"])
def test_losses_and_gradients_of_the_three_policies_are_close(name):
    config, losses, gradients = preset(name), {}, {}
    for policy_name in ("fp8", "bf16", "fp32"):
        module, tokens = Decoder(config, policy(policy_name, backend="emulate")), random_tokens(config)
        initialise(module, config, 0)
        value = loss(module(tokens[:, :-1]), tokens[:, 1:], config)
        value.backward()
        losses[policy_name] = value.item()
        gradients[policy_name] = torch.cat([parameter.grad.float().flatten() for parameter in module.parameters()])
    assert losses["fp8"] == pytest.approx(losses["fp32"], rel=2e-3)
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=1e-3)
    for policy_name, bound in (("fp8", 0.15), ("bf16", 0.05)):
        error = gradients[policy_name] - gradients["fp32"]
        assert 0 < error.norm() / gradients["fp32"].norm() < bound, policy_name
