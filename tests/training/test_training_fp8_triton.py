"""Our Triton kernels: their numbers under Triton's interpreter, and that they compile to a GPU's FP8 instructions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip(
    "triton", minversion="3.9", reason="needs Triton 3.9: older interpreters fail on a loop whose bound is no constant"
)

pytestmark = pytest.mark.torch

ROOT = Path(__file__).parents[2]


def run(*arguments: str, interpret: bool, cache: Path):
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1"} | (
        {"TRITON_INTERPRET": "1"} if interpret else {}
    )
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.triton_kernels", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    return run("interpret", interpret=True, cache=tmp_path_factory.mktemp("triton"))


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
    found = run("compile", str(capability), interpret=False, cache=tmp_path)
    assert found.pop("rows") == found.pop("columns") == ["cvt.rn.satfinite.e4m3x2.f32"]
    assert set(found) == {"*bf16 blocks", "*bf16 tiles", "*fp32 blocks", "*fp32 tiles"}
    for names in found.values():
        assert names
        assert all(name.startswith(instruction) and "e4m3.e4m3" in name for name in names)
