"""Which backend multiplies FP8: what decides it, the self-check, and the layout that torch's own product demands."""

from __future__ import annotations

import logging

import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402

from training.fp8 import backend as backends  # noqa: E402
from training.fp8 import scaled_mm  # noqa: E402
from training.fp8.backend import Unusable, choose, pick, self_check  # noqa: E402
from training.fp8.compare import calc_diff, sqnr_db  # noqa: E402
from training.fp8.emulate import Emulate  # noqa: E402
from training.fp8.groups import TokenGroups  # noqa: E402
from training.fp8.qtensor import E4M3, QTensor, dequantise  # noqa: E402
from training.fp8.quantise import quantise_blocks, quantise_columns, quantise_rows  # noqa: E402
from training.fp8.scaled_mm import DeviceFacts, why_not  # noqa: E402
from training.fp8.tiled import Tiled  # noqa: E402

pytestmark = pytest.mark.torch

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
HOPPER = DeviceFacts(capability=(9, 0), cuda=(12, 9), has_scaled_mm=True)


def exact(a: QTensor, b: QTensor, output: torch.dtype):
    """What any tiled product must give."""
    return (dequantise(a) @ dequantise(b).t()).to(output)


def random(*shape: int, seed: int = 0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Choosing


def test_a_cpu_emulates_without_a_word(caplog):
    assert pick("auto", CPU).name == "emulate"
    assert pick("emulate", CPU).name == "emulate"
    assert not caplog.records


@pytest.mark.parametrize("name", ["scaled_mm", "triton"])
def test_a_backend_that_needs_a_gpu_falls_back_with_one_line(name, caplog, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    pick.cache_clear()
    for _ in range(3):
        assert pick(name, CPU).name == "emulate"
    pick.cache_clear()
    assert len(caplog.records) == 1
    assert caplog.records[0].getMessage().startswith(f"FP8 products are emulated ({name}: ")


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (HOPPER, None),
        (DeviceFacts((9, 0), (13, 0), True), None),
        (DeviceFacts(None, (12, 9), True), "no CUDA device"),
        (DeviceFacts((8, 9), (12, 9), True), "block-wise scaled_mm needs compute capability 9, this is 8.9"),
        (DeviceFacts((10, 0), (12, 9), True), "block-wise scaled_mm needs compute capability 9, this is 10.0"),
        (DeviceFacts((9, 0), (12, 8), True), "block-wise scaled_mm needs a torch built with CUDA 12.9 or newer"),
        (DeviceFacts((9, 0), None, True), "block-wise scaled_mm needs a torch built with CUDA 12.9 or newer"),
        (DeviceFacts((9, 0), (12, 9), False), "this torch has no torch.nn.functional.scaled_mm"),
    ],
)
def test_scaled_mm_wants_hopper_and_cuda_12_9(facts, reason):
    assert why_not(facts) == reason


def test_auto_on_a_gpu_takes_the_first_that_passes(caplog, monkeypatch):
    monkeypatch.setattr(backends, "self_check", lambda backend, device: None)
    makers = {"scaled_mm": lambda _: Tiled("scaled_mm", exact), "triton": lambda _: Tiled("triton", exact)}
    assert choose("auto", CUDA, makers).name == "scaled_mm"
    assert choose("triton", CUDA, makers).name == "triton"
    assert not caplog.records


def test_auto_goes_on_to_the_next_and_says_why_once(caplog, monkeypatch):
    def refuse(device):
        raise Unusable("no CUDA device")

    monkeypatch.setattr(backends, "self_check", lambda backend, device: None)
    assert choose("auto", CUDA, {"scaled_mm": refuse, "triton": lambda _: Tiled("triton", exact)}).name == "triton"
    assert [r.getMessage() for r in caplog.records] == ["FP8 products by triton (scaled_mm: no CUDA device)"]
    assert caplog.records[0].levelno == logging.WARNING


def test_a_self_check_that_fails_means_emulation(caplog):
    makers = {"scaled_mm": lambda _: Tiled("scaled_mm", lambda a, b, output: exact(a, b, output) * 1.01)}
    assert choose("scaled_mm", CPU, makers).name == "emulate"
    assert len(caplog.records) == 1
    assert "scaled_mm: self-check failed: its output differs from emulation by" in caplog.records[0].getMessage()


def test_a_self_check_that_the_device_refuses_means_emulation(caplog):
    def refuse(a, b, output):
        raise NotImplementedError("only on SM90\nException raised from somewhere")

    assert choose("scaled_mm", CPU, {"scaled_mm": lambda _: Tiled("scaled_mm", refuse)}).name == "emulate"
    assert [r.getMessage() for r in caplog.records] == [
        "FP8 products are emulated (scaled_mm: self-check failed: only on SM90)"
    ]


def _one_scale(q: QTensor) -> QTensor:
    return QTensor(q.data, torch.full_like(q.scale, float(q.scale.mean())))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda a, b, output: exact(a, _one_scale(b), output),
        lambda a, b, output: exact(_one_scale(a), b, output),
        lambda a, b, output: exact(a, b, output).roll(1, 0),
        lambda a, b, output: exact(a, b, output) * float("nan"),
    ],
    ids=["scale-of-b", "scale-of-a", "rows", "nan"],
)
def test_the_self_check_notices_a_kernel_that_is_slightly_wrong(wrong):
    with pytest.raises(Unusable, match="self-check failed"):
        self_check(Tiled("wrong", wrong), CPU)


def test_the_self_check_notices_a_wrong_weight_gradient():
    def wrong(a: QTensor, b: QTensor, output: torch.dtype):
        return exact(a, b, output) * (1.1 if output is torch.float32 else 1.0)

    with pytest.raises(Unusable, match="its weight gradient differs"):
        self_check(Tiled("wrong", wrong), CPU)


# The products that every tiled backend shares


def test_a_tiled_backend_gives_what_emulation_gives_for_groups_of_any_size():
    tokens = (100, 0, 128, 7)
    groups = TokenGroups(tokens)
    x, gradient, weight = random(235, 200), random(235, 72, seed=1), quantise_blocks(random(4, 72, 200, seed=2), "w")
    results = []
    for one in (Emulate(), Tiled("exact", exact)):
        kept = one.weight(weight)
        columns = quantise_columns(gradient, groups, "g"), quantise_columns(x, groups, "x")
        results.append(
            (
                one.forward(quantise_rows(x, "x"), kept, groups, torch.float32),
                one.input_gradient(quantise_rows(gradient, "g"), kept, groups, torch.float32),
                one.weight_gradient(*columns, groups),
            )
        )
    for emulated, tiled in zip(*results, strict=True):
        assert emulated.shape == tiled.shape
        assert torch.allclose(emulated, tiled, rtol=1e-5, atol=1e-4)


def test_a_tiled_backend_with_no_tokens_gives_none():
    groups, one = TokenGroups((0, 0)), Tiled("exact", exact)
    kept = one.weight(quantise_blocks(random(2, 72, 200), "w"))
    assert one.forward(quantise_rows(random(0, 200), "x"), kept, groups, torch.bfloat16).shape == (0, 72)
    empty = quantise_columns(random(0, 72), groups, "g"), quantise_columns(random(0, 200), groups, "x")
    assert not one.weight_gradient(*empty, groups).any()


def test_a_tiled_product_sees_k_contiguous_in_both_operands():
    def checked(a: QTensor, b: QTensor, output: torch.dtype):
        assert a.data.stride(1) == b.data.stride(1) == 1
        assert a.data.dtype == b.data.dtype == E4M3
        return exact(a, b, output)

    self_check(Tiled("checked", checked), CPU)


# torch's block-wise product: its meta kernel checks shapes and strides as the CUDA one does

SIZES = [(256, 768, 512), (384, 128, 1280), (128, 128, 128), (130, 70, 300), (1, 1, 1), (200, 272, 656)]


@pytest.mark.parametrize(("m", "n", "k"), SIZES)
@pytest.mark.parametrize("quantise", [quantise_rows, quantise_blocks], ids=["tiles", "blocks"])
@pytest.mark.parametrize("output", [torch.bfloat16, torch.float32])
def test_torch_accepts_the_layout_of_our_scales(m, n, k, quantise, output):
    a, b = quantise_rows(random(m, k), "a"), quantise(random(n, k), "b")
    a, b = (QTensor(q.data.to("meta"), q.scale.to("meta")) for q in (a, b))
    result = scaled_mm.multiply(a, b, output)
    assert result.shape == (m, n)
    assert result.dtype == output


def _as_documented(left, right, left_scale, left_kind, right_scale, right_kind, *, output_dtype):
    """`scaled_mm` by what its documentation says of the scales, with the values read from where they must lie."""
    kinds = functional.ScalingType
    assert left_kind is kinds.BlockWise1x128
    assert right.stride(0) == 1
    values = left.float().unflatten(1, (-1, 128)) * left_scale.unsqueeze(-1)
    if right_kind is kinds.BlockWise128x128:
        assert right_scale.shape[0] % 4 == 0
        scale = right_scale[: right.shape[0] // 128].t()  # [n / 128, k / 128]
        other = right.t().float().unflatten(1, (-1, 128)).unflatten(0, (-1, 128)) * scale[:, None, :, None]
        other = other.flatten(0, 1)
    else:
        other = right.t().float().unflatten(1, (-1, 128)) * right_scale.unsqueeze(-1)
    return (values.flatten(1) @ other.flatten(1).t()).to(output_dtype)


def test_scales_lie_where_scaled_mm_reads_them(monkeypatch):
    monkeypatch.setattr(functional, "scaled_mm", _as_documented)
    self_check(Tiled("scaled_mm", scaled_mm.multiply), CPU)
    for m, n, k in SIZES:
        a = quantise_rows(random(m, k), "a")
        for b in (quantise_blocks(random(n, k, seed=1), "b"), quantise_rows(random(n, k, seed=1), "b")):
            assert calc_diff(scaled_mm.multiply(a, b, torch.float32), exact(a, b, torch.float32)) < 1e-10


# The measures


def test_calc_diff_is_half_the_squared_relative_error():
    x = random(1000)
    assert calc_diff(x, x) == 0.0
    assert calc_diff(x, x * 1.01) == pytest.approx(0.01**2 / 2, rel=0.02)
    assert calc_diff(x, -x) == pytest.approx(2.0)
    assert calc_diff(torch.zeros(3), torch.zeros(3)) == 0.0


def test_sqnr_of_one_percent_is_forty_decibels():
    x = random(1000)
    assert sqnr_db(x, x * 1.01) == pytest.approx(40.0)
    assert sqnr_db(x, x) == float("inf")
