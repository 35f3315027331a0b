"""What is kept or sent in FP8: stored values, the attention core's queries, keys and values, the dispatch's payload."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch.nn import functional  # noqa: E402

from training.fp8.compare import sqnr_db  # noqa: E402
from training.fp8.quantise import dequantise, quantise_rows  # noqa: E402
from training.matmul import attention_core, dequantise_from_wire, quantise_for_wire, stored  # noqa: E402
from training.precision import policy  # noqa: E402

pytestmark = pytest.mark.torch

POLICIES = {name: policy(name, backend="emulate") for name in ("fp8", "bf16", "fp32")}
NAMES = ("mla.query", "mla.key", "mla.value")


def random(*shape: int, seed: int = 0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def core(q, k, v, chosen, **options):
    options = {"causal": True, "scale": q.shape[-1] ** -0.5} | options
    return attention_core(q, k, v, op="mla.core", stored_ops=NAMES, policy=chosen, **options)


def reference(q, k, v, *, causal=True, scale=None):
    return functional.scaled_dot_product_attention(
        q, k, v, is_causal=causal, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
    )


def heads(queries=4, keys=4, sequence=33, width=192, value_width=128):
    return (
        random(2, queries, sequence, width),
        random(2, keys, sequence, width, seed=1),
        random(2, keys, sequence, value_width, seed=2),
    )


def with_gradients(function, tensors, gradient):
    leaves = [each.detach().clone().requires_grad_() for each in tensors]
    result = function(*leaves)
    return result.detach(), *torch.autograd.grad(result, leaves, gradient.to(result.dtype))


# Stored


def test_stored_values_are_rounded_to_the_fp8_grid_and_given_out_in_bf16():
    x = random(2, 5, 192)
    result = stored(x, op="mla.query", policy=POLICIES["fp8"])
    assert torch.equal(result, dequantise(quantise_rows(x, "x")).bfloat16())


def test_a_stored_values_gradient_passes_straight_through():
    x = random(5, 192).requires_grad_()
    gradient = random(5, 192, seed=1).bfloat16()
    stored(x, op="mla.query", policy=POLICIES["fp8"]).backward(gradient)
    assert torch.equal(x.grad, gradient.float())


def test_without_fp8_a_stored_value_is_only_cast():
    x = random(5, 192)
    assert torch.equal(stored(x, op="mla.query", policy=POLICIES["bf16"]), x.bfloat16())
    assert torch.equal(stored(x, op="mla.query", policy=POLICIES["fp32"]), x)


# Attention

CASES = [
    pytest.param({}, {}, id="two-widths"),
    pytest.param({"width": 64, "value_width": 64}, {}, id="one-width"),
    pytest.param({"queries": 6, "keys": 2, "width": 32, "value_width": 32}, {}, id="grouped-queries"),
    pytest.param({"queries": 6, "keys": 1, "width": 48, "value_width": 16}, {}, id="one-key-head"),
    pytest.param({}, {"causal": False}, id="both-ways"),
    pytest.param({}, {"scale": 0.37}, id="other-scale"),
    pytest.param({"sequence": 1}, {}, id="one-token"),
]


@pytest.mark.parametrize(("shape", "options"), CASES)
def test_in_fp32_it_is_torchs_attention(shape, options):
    tensors = heads(**shape)
    gradient = random(*tensors[0].shape[:-1], tensors[2].shape[-1], seed=3)
    results = with_gradients(lambda *each: core(*each, POLICIES["fp32"], **options), tensors, gradient)
    expected = with_gradients(lambda *each: reference(*each, **options), tensors, gradient)
    for result, other in zip(results, expected, strict=True):
        assert torch.allclose(result, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("shape", "options"), CASES)
def test_in_fp8_it_is_torchs_attention_of_the_stored_values(shape, options):
    tensors = heads(**shape)
    gradient = random(*tensors[0].shape[:-1], tensors[2].shape[-1], seed=3).bfloat16().float()
    results = with_gradients(lambda *each: core(*each, POLICIES["fp8"], **options), tensors, gradient)
    values = [stored(each, op="mla.query", policy=POLICIES["fp8"]).float() for each in tensors]
    expected = with_gradients(lambda *each: reference(*each, **options), values, gradient)
    for result, other in zip(results, expected, strict=True):
        assert torch.allclose(result.float(), other, rtol=2.0**-7, atol=2.0**-7 * other.abs().max().item() / 100)
        assert sqnr_db(other, result) > 45 or not other.any()


def test_fp8_attention_is_20_db_from_high_precision():
    tensors = heads(sequence=128)
    gradient = random(*tensors[0].shape[:-1], 128, seed=3)
    exact = with_gradients(lambda *each: core(*each, POLICIES["fp32"]), tensors, gradient)
    for result, other in zip(
        with_gradients(lambda *each: core(*each, POLICIES["fp8"]), tensors, gradient), exact, strict=True
    ):
        assert sqnr_db(other, result) > 20


def test_a_token_does_not_see_the_future():
    q, k, v = heads()
    changed = [each.clone() for each in (k, v)]
    for each in changed:
        each[:, :, 20:] = 100.0
    one, other = core(q, k, v, POLICIES["fp8"]), core(q, *changed, POLICIES["fp8"])
    assert torch.equal(one[:, :, :20], other[:, :, :20])
    assert not torch.equal(one[:, :, 20:], other[:, :, 20:])


def test_the_backward_pass_keeps_codes_and_scales_and_nothing_else():
    q, k, v = (each.bfloat16().requires_grad_() for each in heads())
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        result = core(q, k, v, POLICIES["fp8"])
    assert [each.dtype for each in saved] == [torch.float8_e4m3fn, torch.float32] * 3
    assert [tuple(each.shape) for each in saved[::2]] == [tuple(each.shape) for each in (q, k, v)]
    assert [each.shape[-1] for each in saved[1::2]] == [2, 2, 1]
    assert result.grad_fn is not None
    held = [value for value in vars(result.grad_fn).values() if isinstance(value, torch.Tensor)]
    assert held == []


@pytest.mark.parametrize(("name", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_without_fp8_it_keeps_the_values_themselves(name, dtype):
    tensors = [each.requires_grad_() for each in heads()]
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        core(*tensors, POLICIES[name])
    assert [each.dtype for each in saved] == [dtype] * 3


def test_attention_shows_the_observer_what_it_stores_and_multiplies():
    seen = defaultdict(list)
    chosen = replace(POLICIES["fp8"], observer=lambda op, role, tensor: seen[op, role].append(tensor.dtype))
    with_gradients(lambda *each: core(*each, chosen), heads(), random(2, 4, 33, 128))
    bf16 = torch.bfloat16
    for name in NAMES:
        assert seen[name, "stored"] == [torch.float8_e4m3fn]
        assert seen[name, "output"] == [bf16]
    assert seen["mla.core", "compute"] == [bf16] * 3
    assert seen["mla.core", "accumulate"] == [torch.float32]
    assert seen["mla.core", "output"] == [bf16]
    assert seen["mla.core", "input_gradient"] == [bf16] * 3


def test_strided_heads_give_what_contiguous_ones_give():
    strided = [each.transpose(1, 2).contiguous().transpose(1, 2) for each in heads()]
    assert torch.equal(core(*strided, POLICIES["fp8"]), core(*heads(), POLICIES["fp8"]))


# The wire


def test_the_wire_carries_a_byte_a_value_and_four_per_128():
    payload, scales = quantise_for_wire(random(64, 256).bfloat16(), POLICIES["fp8"])
    assert (payload.dtype, tuple(payload.shape)) == (torch.uint8, (64, 256))
    assert (scales.dtype, tuple(scales.shape)) == (torch.float32, (64, 2))
    bf16_bytes = 64 * 256 * 2
    assert (payload.numel() + 4 * scales.numel()) / bf16_bytes == 0.515625


@pytest.mark.parametrize("power_of_two", [False, True])
def test_what_went_over_the_wire_is_what_the_quantiser_made(power_of_two):
    chosen = policy("fp8", backend="emulate", power_of_two_scales=power_of_two)
    x = random(64, 300)
    value = dequantise_from_wire(*quantise_for_wire(x, chosen), torch.bfloat16)
    assert torch.equal(value, dequantise(quantise_rows(x, "x", power_of_two=power_of_two)).bfloat16())
    assert sqnr_db(x, value) > 30


@settings(deadline=None, max_examples=30)
@given(tokens=st.integers(0, 50), width=st.integers(1, 300))
def test_any_payload_comes_back_in_shape(tokens, width):
    payload, scales = quantise_for_wire(random(tokens, width), POLICIES["fp8"])
    assert dequantise_from_wire(payload, scales, torch.float32).shape == (tokens, width)
