"""Our Triton kernels: their numbers under Triton's interpreter, and that they compile to a GPU's FP8 instructions."""

from __future__ import annotations

import pytest

from tests.triton_process import run_triton

pytest.importorskip("torch")
pytest.importorskip(
    "triton", minversion="3.9", reason="needs Triton 3.9: older interpreters fail on a loop whose bound is no constant"
)

pytestmark = pytest.mark.torch

MODULE = "tests.training.triton_kernels"


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    return run_triton(MODULE, "interpret", interpret=True, cache=tmp_path_factory.mktemp("triton"))


def test_the_kernel_multiplies_like_the_reference_at_every_size(interpreted):
    assert len(interpreted["errors"]) == 12
    assert {size: error for size, error in interpreted["errors"].items() if not error < 1e-6} == {}


def test_the_kernel_casts_its_accumulator_itself(interpreted):
    assert interpreted["bf16_error"] == 0.0


def test_the_kernel_passes_the_self_check(interpreted):
    assert interpreted["backend"] == "triton"


def test_a_layer_on_the_kernel_gives_what_emulation_gives(interpreted):
    output, input_gradient, weight_gradient = interpreted["layer"]
    assert output <= 2.0**-7  # one step of BF16: the FP32 sums before the rounding have another order
    assert input_gradient <= 2.0**-7
    assert weight_gradient < 1e-5


def test_the_quantiser_kernels_are_bitwise_the_plain_quantisers(interpreted):
    assert interpreted["quantisers"] is None


def test_the_quantiser_kernels_mark_tiles_that_are_not_finite(interpreted):
    assert interpreted["spoilt_scales"] == [[True, False, False, True]] * 2


@pytest.mark.parametrize(("capability", "instruction"), [(90, "wgmma.mma_async"), (89, "mma.sync")])
def test_the_kernels_compile_to_fp8_instructions(capability, instruction, tmp_path):
    found = run_triton(MODULE, "compile", str(capability), interpret=False, cache=tmp_path)
    assert found.pop("rows") == found.pop("columns") == ["cvt.rn.satfinite.e4m3x2.f32"]
    assert set(found) == {"*bf16 blocks", "*bf16 tiles", "*fp32 blocks", "*fp32 tiles"}
    for names in found.values():
        assert names
        assert all(name.startswith(instruction) and "e4m3.e4m3" in name for name in names)
