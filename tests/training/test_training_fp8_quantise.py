"""The quantiser at its bounds: rounding, zero tiles, outliers, parts of tiles, scales."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from training.fp8 import plain_quantise  # noqa: E402
from training.fp8.compare import sqnr_db  # noqa: E402
from training.fp8.fused import difference, quantisers  # noqa: E402
from training.fp8.groups import TokenGroups  # noqa: E402
from training.fp8.plain_quantise import SMALLEST_AMAX  # noqa: E402
from training.fp8.qtensor import E4M3, E4M3_MAX, QTensor, dequantise  # noqa: E402
from training.fp8.quantise import quantise_blocks, quantise_columns, quantise_rows  # noqa: E402

pytestmark = pytest.mark.torch

SMALLEST_NORMAL = 2.0**-6
LARGEST_ROUNDING = 2.0**-4  # of a normal E4M3 number: half of the last of three bits


def random(*shape: int, seed: int = 0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def same(one: QTensor, other: QTensor) -> bool:
    return torch.equal(one.data.view(torch.uint8), other.data.view(torch.uint8)) and torch.equal(one.scale, other.scale)


def rows(x, **options):
    return quantise_rows(x, "x", **options)


def columns(x, *tokens: int, **options):
    return quantise_columns(x, TokenGroups(tokens or (x.shape[0],)), "x", **options)


def blocks(x, **options):
    return quantise_blocks(x, "x", **options)


QUANTISERS = [rows, columns, blocks]


@pytest.mark.parametrize("quantise", QUANTISERS)
def test_codes_are_e4m3_and_scales_fp32(quantise):
    q = quantise(random(256, 384).bfloat16())
    assert (q.data.dtype, q.scale.dtype) == (E4M3, torch.float32)


@pytest.mark.parametrize(
    ("quantise", "shape"), [(rows, (256, 3)), (columns, (2, 384)), (blocks, (2, 3))], ids=["rows", "columns", "blocks"]
)
def test_a_scale_stands_for_128_values_or_for_128_x_128(quantise, shape):
    assert tuple(quantise(random(256, 384)).scale.shape) == shape


@pytest.mark.parametrize("quantise", QUANTISERS)
@pytest.mark.parametrize("power_of_two", [False, True])
def test_a_normal_number_is_off_by_at_most_a_sixteenth(quantise, power_of_two):
    x = random(256, 256, seed=1)
    q = quantise(x, power_of_two=power_of_two)
    value = dequantise(q)
    is_normal = q.data.float().abs() >= SMALLEST_NORMAL
    assert is_normal.float().mean() > 0.97
    assert ((value - x).abs() <= LARGEST_ROUNDING * x.abs() * (1 + 1e-6))[is_normal].all()


@pytest.mark.parametrize(("quantise", "at_least_db"), [(rows, 31), (columns, 31), (blocks, 31)])
def test_the_noise_is_30_db_below_normal_values(quantise, at_least_db):
    x = random(512, 512)
    assert sqnr_db(x, dequantise(quantise(x))) > at_least_db


@pytest.mark.parametrize("quantise", QUANTISERS)
def test_a_zero_tile_stays_zero_and_its_scale_finite(quantise):
    x = random(256, 256)
    x[:128, :128] = 0
    q = quantise(x)
    assert torch.isfinite(q.scale).all()
    assert (q.scale > 0).all()
    assert torch.equal(dequantise(q)[:128, :128], torch.zeros(128, 128))


@pytest.mark.parametrize("smallest", [0.0, 1e-45, 1e-38, 1e-32])
def test_values_too_small_for_a_scale_are_rounded_not_blown_up(smallest):
    x = torch.full((1, 128), smallest)
    value = dequantise(rows(x))
    assert torch.isfinite(value).all()
    assert (value - x).abs().max() <= max(smallest, SMALLEST_AMAX / E4M3_MAX)


@pytest.mark.parametrize("size", [1e-25, 1e30, 3.3e38])
def test_very_small_and_very_large_values_keep_their_three_bits(size):
    x = torch.tensor([[1.0, -0.5, 0.3] + [0.0] * 125]) * size
    assert torch.allclose(dequantise(rows(x)), x, rtol=LARGEST_ROUNDING, atol=0)


def test_an_outlier_leaves_all_other_tiles_alone():
    x = random(4, 512)
    spoilt = x.clone()
    spoilt[2, 130] = 1e5
    clean, other = dequantise(rows(x)), dequantise(rows(spoilt))
    changed = (clean != other).nonzero()
    assert set(changed[:, 0].tolist()) == {2}
    assert set((changed[:, 1] // 128).tolist()) == {1}


def test_an_outlier_channel_costs_nothing_in_tiles_but_much_with_one_scale_a_tensor():
    x = random(256, 512)
    x[:, 7] *= 20000
    kept = [i for i in range(512) if i // 128 != 0]
    by_tile = sqnr_db(x[:, kept], dequantise(rows(x))[:, kept])
    scale = x.abs().max() / E4M3_MAX
    by_tensor = sqnr_db(x[:, kept], (x / scale).to(E4M3).float()[:, kept] * scale)
    assert by_tile > 31
    assert by_tensor < by_tile - 5


@pytest.mark.parametrize("width", [130, 1, 127, 129, 192, 300])
def test_a_part_of_a_tile_is_as_if_it_stood_alone(width):
    x = random(8, width)
    q = rows(x)
    pieces = [rows(piece.contiguous()) for piece in x.split(128, dim=1)]
    assert same(q, QTensor(_joined([piece.data for piece in pieces]), torch.cat([p.scale for p in pieces], 1)))


def test_padding_with_zeros_changes_no_code():
    x = random(130, 130)
    wide = torch.nn.functional.pad(x, (0, 126, 0, 126))
    assert torch.equal(dequantise(rows(x)), dequantise(rows(wide))[:130, :130])
    assert torch.equal(dequantise(blocks(x)), dequantise(blocks(wide))[:130, :130])
    assert torch.equal(dequantise(columns(x)), dequantise(columns(wide))[:, :130])


def _joined(codes):
    return torch.cat([each.view(torch.uint8) for each in codes], 1).view(E4M3)


def test_columns_are_the_rows_of_the_transpose():
    x = random(256, 192)
    q, turned = columns(x), rows(x.t().contiguous())
    assert same(QTensor(q.data.t(), q.scale.t()), turned)


def test_columns_pad_each_group_so_that_no_tile_holds_two():
    x = random(300, 64)
    q = columns(x, 100, 0, 200)
    assert q.data.shape == (128 + 256, 64)
    value = dequantise(q)
    assert torch.equal(value[:128], dequantise(columns(x[:100])))
    assert torch.equal(value[128:], dequantise(columns(x[100:])))
    assert not value[100:128].any()


def test_blocks_of_the_transpose_are_the_transposed_blocks():
    weight = random(384, 256)
    q, turned = blocks(weight), blocks(weight.t().contiguous())
    assert same(QTensor(q.data.t(), q.scale.t()), turned)


def test_blocks_of_several_matrices_are_each_matrixs_own():
    weights = random(3, 200, 140)
    q = blocks(weights)
    for index in range(3):
        assert same(QTensor(q.data[index], q.scale[index]), blocks(weights[index]))


def test_power_of_two_scales_are_powers_of_two_and_never_too_small():
    x = random(64, 512) * torch.logspace(-20, 20, 64).unsqueeze(1)
    q, plain = rows(x, power_of_two=True), rows(x)
    mantissa, _ = torch.frexp(q.scale)
    assert (mantissa == 0.5).all()
    assert (q.scale >= plain.scale).all()
    assert (q.scale < 2 * plain.scale * (1 + 1e-6)).all()


def test_a_scale_that_is_a_power_of_two_already_is_kept():
    x = torch.full((1, 128), E4M3_MAX * 0.25)
    assert rows(x, power_of_two=True).scale.item() == 0.25


def test_every_code_decodes_to_its_number():
    codes = torch.arange(256, dtype=torch.uint8).view(E4M3)
    finite = ~codes.float().isnan()
    value = dequantise(QTensor(codes.view(1, 256), torch.ones(1, 2))).view(256)
    assert torch.equal(value[finite], codes.float()[finite])


def test_a_tile_that_was_not_finite_never_decodes_to_finite_numbers():
    codes = torch.tensor([[0x7F, 0xFF, 0x01]], dtype=torch.uint8).view(E4M3)
    for scale in (float("nan"), float("inf")):
        assert not dequantise(QTensor(codes, torch.tensor([[scale]]))).isfinite().any()


def test_bf16_and_fp32_inputs_of_the_same_value_give_the_same_codes():
    x = random(64, 256).bfloat16()
    assert same(rows(x), rows(x.float()))


def test_the_input_is_left_as_it_was():
    x = random(128, 128)
    before = x.clone()
    for quantise in QUANTISERS:
        quantise(x)
    assert torch.equal(x, before)


def test_a_transposed_view_is_quantised_like_its_copy():
    x = random(2, 3, 5, 192).transpose(1, 2)
    assert same(rows(x), rows(x.contiguous()))


@settings(deadline=None, max_examples=60)
@given(
    shape=st.lists(st.integers(0, 300), min_size=1, max_size=3).filter(lambda s: torch.Size(s).numel() < 60_000),
    seed=st.integers(0, 9),
    power_of_two=st.booleans(),
)
def test_rows_of_any_shape_come_back_within_the_rounding(shape, seed, power_of_two):
    x = random(*shape, seed=seed)
    q = rows(x, power_of_two=power_of_two)
    assert q.data.shape == x.shape
    assert tuple(q.scale.shape) == (*x.shape[:-1], -(-x.shape[-1] // 128))
    per_value = q.scale.repeat_interleave(128, -1)[..., : x.shape[-1]]
    assert ((dequantise(q) - x).abs() <= LARGEST_ROUNDING * x.abs() * (1 + 1e-6) + per_value * 2.0**-10).all()


@settings(deadline=None, max_examples=40)
@given(tokens=st.lists(st.integers(0, 300), min_size=1, max_size=4), width=st.integers(1, 150), seed=st.integers(0, 9))
def test_columns_of_any_groups_come_back_within_the_rounding(tokens, width, seed):
    groups = TokenGroups(tuple(tokens))
    x = random(sum(tokens), width, seed=seed)
    value = dequantise(quantise_columns(x, groups, "x"))
    for here, there in zip(groups.spans(), groups.padded_spans(), strict=True):
        assert ((value[there] - x[here]).abs() <= LARGEST_ROUNDING * x[here].abs() * (1 + 1e-6) + 2e-5).all()


# Which quantisers run


def test_a_cpu_runs_the_plain_quantisers():
    assert quantisers(torch.device("cpu")) is plain_quantise


def test_a_device_without_fp8_runs_the_plain_quantisers_and_says_so_once(caplog):
    for _ in range(2):
        assert quantisers(torch.device("meta")) is plain_quantise
    assert [each.getMessage() for each in caplog.records] == [
        "FP8 tensors are quantised without our kernels (no CUDA device with FP8)"
    ]


def test_quantisers_that_differ_in_one_code_are_found():
    def off_by_one(x, *, power_of_two):
        codes, scales = plain_quantise.rows(x, power_of_two=power_of_two)
        codes.view(torch.uint8)[-1, -1] ^= 1
        return codes, scales

    plain = SimpleNamespace(rows=plain_quantise.rows, columns=plain_quantise.columns)
    assert difference(plain, torch.device("cpu")) is None
    plain.rows = off_by_one
    assert difference(plain, torch.device("cpu")) == "rows differ"


def test_quantisers_that_the_device_refuses_are_found():
    def refuse(x, *, power_of_two):
        raise RuntimeError("no such instruction\nat line 3")

    broken = SimpleNamespace(rows=plain_quantise.rows, columns=refuse)
    assert difference(broken, torch.device("cpu")) == "columns failed: no such instruction"
