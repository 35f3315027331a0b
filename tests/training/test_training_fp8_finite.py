"""What is not finite in front of the FP8 cast is named, at once or once per step, and never becomes 448."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from training.errors import NumericsError  # noqa: E402
from training.fp8 import finite, quantise  # noqa: E402
from training.fp8.finite import FiniteWatch  # noqa: E402
from training.fp8.groups import TokenGroups  # noqa: E402
from training.fp8.quantise import dequantise, quantise_blocks, quantise_columns, quantise_rows  # noqa: E402
from training.matmul import grouped_linear, linear, quantise_for_wire, raise_if_non_finite, stored  # noqa: E402
from training.precision import policy  # noqa: E402

pytestmark = pytest.mark.torch

FP8 = policy("fp8", backend="emulate")
BAD = [float("nan"), float("inf"), float("-inf")]


@pytest.fixture
def deferred(monkeypatch):
    """Counts as on a GPU, where a look at the value would wait for the device."""
    watch = FiniteWatch(deferred_on=frozenset({"cpu"}))
    monkeypatch.setattr(quantise, "WATCH", watch)
    monkeypatch.setattr(finite, "WATCH", watch)
    return watch


def with_one(bad: float, *shape: int):
    x = torch.ones(*shape)
    x[-1, -1] = bad
    return x


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_tile_raises_at_once_on_a_cpu_and_is_counted(bad):
    x = with_one(bad, 256, 256)
    for quantise_x in (
        lambda: quantise_rows(x, "ffn.linear input"),
        lambda: quantise_columns(x, TokenGroups((256,)), "ffn.linear input"),
        lambda: quantise_blocks(x, "ffn.linear input"),
    ):
        with pytest.raises(NumericsError) as caught:
            quantise_x()
        tiles = int(str(caught.value).split("(")[1].split(" ")[0])
        assert str(caught.value) == f"not finite before the FP8 cast: ffn.linear input ({tiles} tiles)"
        assert tiles == 1


@pytest.mark.parametrize("bad", BAD)
def test_bad_input_weight_and_gradient_are_named(bad):
    x, weight = torch.ones(4, 128), torch.ones(128, 128)
    with pytest.raises(NumericsError, match=r"mla\.q_proj input"):
        linear(with_one(bad, 4, 128), weight, op="mla.q_proj", policy=FP8)
    with pytest.raises(NumericsError, match=r"mla\.q_proj weight"):
        linear(x, with_one(bad, 128, 128), op="mla.q_proj", policy=FP8)
    result = linear(x.requires_grad_(), weight.requires_grad_(), op="mla.q_proj", policy=FP8)
    with pytest.raises(NumericsError, match=r"mla\.q_proj gradient"):
        result.backward(with_one(bad, 4, 128).bfloat16())


@pytest.mark.parametrize("bad", BAD)
def test_grouped_stored_and_wire_name_theirs_too(bad):
    x = with_one(bad, 4, 128)
    with pytest.raises(NumericsError, match=r"moe\.expert input"):
        grouped_linear(x, torch.ones(2, 8, 128), [2, 2], op="moe.expert", policy=FP8)
    with pytest.raises(NumericsError, match=r"mla\.key"):
        stored(x, op="mla.key", policy=FP8)
    with pytest.raises(NumericsError, match=r"moe\.dispatch"):
        quantise_for_wire(x, FP8)


def test_without_fp8_nothing_is_looked_at():
    x = with_one(float("nan"), 4, 128)
    assert linear(x, torch.ones(8, 128), op="mla.q_proj", policy=policy("bf16"))[-1].isnan().all()


@pytest.mark.parametrize("bad", BAD)
def test_on_a_gpu_a_bad_tile_counts_and_the_step_raises(deferred, bad):
    quantise_rows(torch.ones(4, 256), "clean")
    q = quantise_rows(with_one(bad, 4, 256), "ffn.linear input")
    quantise_rows(with_one(bad, 4, 256), "ffn.linear input")
    assert not dequantise(q)[-1, 128:].isfinite().any()  # nothing that follows can look right
    assert dequantise(q)[:, :128].isfinite().all()
    with pytest.raises(NumericsError, match=r"^not finite before the FP8 cast: ffn\.linear input \(2 tiles\)$"):
        raise_if_non_finite()


def test_the_count_starts_anew_after_it_was_raised(deferred):
    quantise_rows(with_one(float("inf"), 1, 128), "x")
    with pytest.raises(NumericsError):
        raise_if_non_finite()
    raise_if_non_finite()
    quantise_rows(torch.ones(1, 128), "x")
    raise_if_non_finite()


def test_a_result_of_counted_values_is_not_finite(deferred):
    x = with_one(float("inf"), 4, 128)
    result = linear(x, torch.ones(8, 128), op="mla.q_proj", policy=FP8)
    assert not result[-1].isfinite().any()
    with pytest.raises(NumericsError, match="input"):
        raise_if_non_finite()


def test_no_tokens_are_no_error():
    assert linear(torch.ones(0, 128), torch.ones(8, 128), op="mla.q_proj", policy=FP8).shape == (0, 8)
