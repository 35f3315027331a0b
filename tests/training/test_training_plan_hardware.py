"""Figures with their sources, as presets and from a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from training.errors import ConfigError
from training.planning.hardware import FIGURES, PRESETS, hardware, load_hardware
from training.precision import BF16, FP8, FP32

EXAMPLE = Path(__file__).parents[2] / "etc/training/hardware.toml"


@pytest.mark.parametrize("name", PRESETS)
def test_every_figure_of_a_preset_has_a_source(name) -> None:
    preset = hardware(name)
    assert set(preset.sources) == set(FIGURES)
    assert all(preset.sources.values())


def test_fp8_counts_as_twice_bf16_less_its_lower_efficiency() -> None:
    h100 = hardware("h100-sxm")
    assert h100.gemm_flops_per_s(FP8) == pytest.approx(1978.9e12 * 0.5)
    assert h100.gemm_flops_per_s(BF16) == pytest.approx(989.4e12 * 0.6)


def test_without_fp8_units_it_is_emulated_in_fp32() -> None:
    a100 = hardware("a100-sxm")
    assert a100.gemm_flops_per_s(FP8) == a100.gemm_flops_per_s(FP32)


def test_links_slow_down_at_the_end_of_the_node() -> None:
    h100 = hardware("h100-sxm")
    assert h100.link_bytes_per_s(8) == pytest.approx(450e9 * 0.75)
    assert h100.link_bytes_per_s(9) == pytest.approx(50e9 * 0.75)


def test_the_example_file_is_read() -> None:
    example = hardware(str(EXAMPLE))
    assert example.name == "my-h100-cluster"
    assert example.bf16_flops_per_s == hardware("h100-sxm").bf16_flops_per_s
    assert example.gpus_per_node == 8


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param("idle_watts =", "idel_watts =", "idel_watts: must be name or one of", id="typo"),
        pytest.param('name = "my-h100-cluster"', "", "name: is missing", id="no-name"),
        pytest.param("{ value = 8,", "{ valeu = 8,", "must be { value = number", id="wrong-key"),
        pytest.param("value = 80e9", 'value = "80 GB"', "hardware.memory_bytes = 80 GB: must be a number", id="text"),
        pytest.param("value = 0.60", "value = 1.60", "gemm_efficiency_fraction = 1.6: must be at most 1", id="above-1"),
        pytest.param("value = 80e9", "value = 0", "hardware.memory_bytes = 0.0: must be positive", id="zero"),
        pytest.param("value = 130", "value = 1300", "must not fall", id="waiting-above-busy"),
        pytest.param('source = "HGX baseboard"', 'source = ""', "source must be a text", id="no-source"),
        pytest.param('name = "my-h100-cluster"', "name = ", "hardware.toml: ", id="not-toml"),
    ],
)
def test_a_file_with_a_mistake_is_refused_in_one_line(tmp_path, old, new, message) -> None:
    text = EXAMPLE.read_text()
    assert old in text
    path = tmp_path / "hardware.toml"
    path.write_text(text.replace(old, new))
    with pytest.raises(ConfigError) as refused:
        load_hardware(path)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_and_a_name_nobody_knows_are_named(tmp_path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_hardware(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="hardware = h1000: must be one of h100-sxm, "):
        hardware("h1000")


def test_fp8_may_be_left_out(tmp_path) -> None:
    lines = [line for line in EXAMPLE.read_text().splitlines() if not line.startswith("fp8_flops")]
    path = tmp_path / "hardware.toml"
    path.write_text("\n".join(lines))
    assert load_hardware(path).fp8_flops_per_s is None


def test_a_figure_needs_a_source() -> None:
    h100 = hardware("h100-sxm")
    with pytest.raises(ConfigError, match=r"hardware\.idle_watts = 70\.0: needs a source"):
        replace(h100, sources={key: text for key, text in h100.sources.items() if key != "idle_watts"})
