"""Our Triton kernels: their numbers under Triton's interpreter, and that they compile for a GPU."""

from __future__ import annotations

import pytest

from tests.triton_process import run_triton

torch = pytest.importorskip("torch")
pytest.importorskip(
    "triton", minversion="3.9", reason="needs Triton 3.9: older interpreters fail on a loop whose bound is no constant"
)

pytestmark = pytest.mark.torch

MODULE = "tests.serving.triton_attention"


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    return run_triton(MODULE, "interpret", interpret=True, cache=tmp_path_factory.mktemp("triton"))


def test_the_kernel_equals_the_loop_for_every_shape_and_step(interpreted):
    assert len(interpreted["errors"]) == 25
    assert {case: error for case, error in interpreted["errors"].items() if not error < 3e-6} == {}


def test_the_kernel_equals_the_loop_to_a_rounding_of_a_half_precision_cache(interpreted):
    assert {case: error for case, error in interpreted["half"].items() if not error < 4e-3} == {}


def test_the_kernel_writes_keys_and_values_to_their_slots(interpreted):
    assert interpreted["written"] == {"torch.float32": True, "torch.bfloat16": True}


def test_the_kernel_passes_the_trial_that_a_gpu_has_to_pass(interpreted):
    assert interpreted["trial"] < 0.002


def test_the_kernel_compiles_to_matrix_instructions_and_fits_into_a_hopper(tmp_path):
    compiled = run_triton(MODULE, "compile", "90", interpret=False, cache=tmp_path)
    assert len(compiled) == 6
    assert all(case["products"] for case in compiled.values())
    assert max(case["shared_bytes"] for case in compiled.values()) < 227 * 1024


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("values_in_keys", [False, True], ids=["grouped", "latent"])
def test_on_a_gpu_the_kernel_equals_the_reference(values_in_keys):
    from bench.gpu_serving_attention import difference

    assert difference(values_in_keys=values_in_keys) < 0.02
