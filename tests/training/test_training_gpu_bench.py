"""The GPU bench without a GPU: its roofline's arithmetic, its table, and that it says so when it cannot measure."""

from __future__ import annotations

import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # the bench lies beside what is installed

from bench import gpu_training  # noqa: E402
from bench.gpu_roofline import (  # noqa: E402
    Layer,
    feed_forward,
    layers,
    preset_of,
    product_s,
    products_s,
    quantised_bytes,
    roofline_s,
)
from training.planning.hardware import hardware  # noqa: E402
from training.precision import BF16, FP8, FP32  # noqa: E402

H100, A100 = hardware("h100-sxm"), hardware("a100-sxm")
DOWN = Layer("expert down", 2048, 7168, 4096)


def test_a_layers_operations_are_three_products():
    assert DOWN.flops == 3 * 2 * 4096 * 2048 * 7168


def test_every_shape_is_measured_with_both_numbers_of_tokens():
    assert {layer.tokens for layer in layers()} == {4096, 8192}
    assert ("dense down", 18432, 7168) in {(layer.name, layer.inputs, layer.outputs) for layer in layers()}
    assert len(layers()) == 12


def test_a_block_is_what_its_two_weights_say():
    gate_up, down = feed_forward(4096)
    assert (gate_up.inputs, gate_up.outputs, down.inputs, down.outputs) == (7168, 36864, 18432, 7168)


def test_a_large_product_is_bound_by_computing():
    assert product_s(8192, 8192, 8192, 2, 2, H100) == pytest.approx(2 * 8192**3 / 989.4e12)
    assert product_s(8192, 8192, 8192, 1, 2, H100) == pytest.approx(2 * 8192**3 / 1978.9e12)


def test_a_thin_product_is_bound_by_the_memory():
    assert product_s(1, 8192, 8192, 2, 2, H100) == pytest.approx((8192 + 8192**2 + 8192) * 2 / 3.35e12)


def test_quantising_moves_each_value_of_x_and_dy_six_bytes_and_a_bit():
    moved = quantised_bytes(DOWN)
    assert moved == 4096 * (2048 + 7168) * 2 * (2 + 1 + 4 / 128) + 2048 * 7168 * 5


def test_the_fp8_roofline_is_its_products_and_its_quantisers():
    expected = products_s(DOWN, 1, H100) + quantised_bytes(DOWN) / 3.35e12
    assert roofline_s(DOWN, FP8, H100) == pytest.approx(expected)
    assert roofline_s(DOWN, BF16, H100) == pytest.approx(DOWN.flops / 989.4e12)


def test_fp8_can_win_at_every_shape_but_never_twice_over():
    for layer in layers():
        assert 1.2 < roofline_s(layer, BF16, H100) / roofline_s(layer, FP8, H100) < 2


def test_a_board_without_fp8_has_no_fp8_roofline():
    assert roofline_s(DOWN, FP8, A100) == float("inf")
    with pytest.raises(ValueError, match="no roofline for fp32"):
        roofline_s(DOWN, FP32, H100)


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        ("NVIDIA H100 80GB HBM3", "h100-sxm"),
        ("NVIDIA H200", "h200-sxm"),
        ("NVIDIA A100-SXM4-80GB", "a100-sxm"),
        ("NVIDIA H100 PCIe", None),  # other clocks, other memory
        ("NVIDIA GeForce RTX 4090", None),
    ],
)
def test_peaks_are_stated_only_for_boards_we_know(name, preset):
    assert preset_of(name) == preset


def row(stated=H100, joules=0.8):
    seconds = {"bf16": 2e-3, "fp8": 1.25e-3}
    compared = gpu_training.compared([DOWN], seconds, {"bf16": 1.2, "fp8": joules}, stated)
    return {"name": DOWN.name, "fp8_weight_cached_s": 1.1e-3} | compared


def test_a_row_compares_times_roofs_and_joules():
    result = row()
    assert result["fp8_speedup"] == pytest.approx(1.6)
    assert result["bf16"]["flops_per_s"] == pytest.approx(DOWN.flops / 2e-3)
    assert result["bf16"]["roofline_fraction"] == pytest.approx(DOWN.flops / 989.4e12 / 2e-3)
    assert result["fp8"]["joules_per_token"] == pytest.approx(0.8 / 4096)
    assert result["fp8_speedup_roofline"] == pytest.approx(roofline_s(DOWN, BF16, H100) / roofline_s(DOWN, FP8, H100))


def test_a_block_is_bounded_by_the_sum_of_its_layers():
    parts = feed_forward(4096)
    result = gpu_training.compared(parts, {"bf16": 0.1, "fp8": 0.1}, {"bf16": None, "fp8": None}, H100)
    assert result["bf16"]["roofline_fraction"] == pytest.approx(
        sum(roofline_s(part, BF16, H100) for part in parts) / 0.1
    )


def test_what_is_not_known_is_none_and_printed_as_unknown():
    unknown_board = row(stated=None)
    assert unknown_board["bf16"]["roofline_fraction"] is None
    assert unknown_board["fp8_speedup_roofline"] is None
    assert row(stated=A100)["fp8"]["roofline_fraction"] is None
    assert row(joules=None)["fp8"]["joules_per_token"] is None
    assert gpu_training.cells(row(stated=None, joules=None)).count("unknown") == 4


def test_the_table_has_a_cell_for_every_column():
    assert len(gpu_training.cells(row())) == len(gpu_training.COLUMNS)


def test_the_report_names_device_backend_and_peaks():
    figures = {
        "device": "NVIDIA H100 80GB HBM3",
        "torch": "2.13.0",
        "backend": "scaled_mm",
        "stated_peaks": "h100-sxm",
        "bf16_flops_per_s_measured": 7.0e14,
        "scaled_mm_calc_diff": {"expert down": 1e-7},
        "linear": [row()],
        "feed_forward": [row()],
    }
    console = Console(file=StringIO(), width=200, highlight=False)
    gpu_training.show(figures, console)
    text = console.file.getvalue()
    assert "FP8 by scaled_mm" in text
    assert "700 TFLOP/s" in text
    assert text.count("expert down") == 3
    assert "1.60x" in text


def test_without_a_gpu_it_ends_with_one_line():
    done = subprocess.run(
        [sys.executable, "-m", "bench.gpu_training"],
        cwd=ROOT,
        env={"CUDA_VISIBLE_DEVICES": "", "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert done.stderr == "bench.gpu_training: needs a CUDA device, and torch sees none\n"
    assert done.stdout == ""


def test_what_a_gpu_would_run_runs_on_a_cpu_in_small():
    torch = pytest.importorskip("torch")
    from bench.gpu_steps import feed_forward_step, linear_step, scaled_mm_differences
    from training.precision import policy

    cpu = torch.device("cpu")
    for name in ("bf16", "fp8"):
        linear_step(Layer("small", 128, 256, 64), policy(name), cpu)()
        feed_forward_step(Layer("up", 128, 256, 64), Layer("down", 128, 128, 64), policy(name), cpu)()
    assert scaled_mm_differences(cpu) == "no CUDA device"


def test_a_case_times_both_precisions_and_a_cached_weight(monkeypatch):
    torch = pytest.importorskip("torch")
    from bench import gpu_meter

    times_s = iter([4e-3, 2e-3, 1e-3])
    monkeypatch.setattr(gpu_meter, "seconds", lambda step: (step(), next(times_s))[1])
    monkeypatch.setattr(gpu_meter, "joules", lambda step, *, step_s, device: 100 * step_s)
    result = gpu_training._measured("small", [Layer("small", 128, 256, 64)], None, torch.device("cpu"))
    assert result["fp8_speedup"] == 2.0
    assert result["fp8_weight_cached_s"] == 1e-3
    assert result["bf16"]["joules_per_token"] == pytest.approx(0.4 / 64)
    assert len(gpu_training.cells(result)) == len(gpu_training.COLUMNS)
