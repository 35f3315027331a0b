"""Folders as others write them: what `training/` saves, FP8 with scales, BF16, several files; weights that sleep."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402

from job_wrappers.serving.errors import ConfigError  # noqa: E402
from job_wrappers.serving.models.build import read_config, torch_dtype, weight_bytes  # noqa: E402
from job_wrappers.serving.models.place import ModelPlace  # noqa: E402
from tests.serving.one_rank import ManyRanks, OneRank  # noqa: E402
from tests.serving.tiny_models import FAMILIES, oracle_logits, tiny_folder, write_model  # noqa: E402
from training.fp8.qtensor import QTensor, dequantise  # noqa: E402
from training.fp8.quantise import quantise_blocks  # noqa: E402
from training.model.decoder import Decoder as TrainedDecoder  # noqa: E402
from training.model.hf_folder import save_hf  # noqa: E402
from training.model.hf_names import whole_tensors  # noqa: E402
from training.model.initialise import initialise  # noqa: E402
from training.model.presets import preset  # noqa: E402
from training.precision import BF16, FP8, FP32, Precision, policy  # noqa: E402

pytestmark = pytest.mark.torch

TOKENS = [int(t) for t in torch.randint(2, 250, (40,), generator=torch.Generator().manual_seed(5))]
FP32_BYTES = 4


def _trained(name: str) -> Any:
    config = replace(preset(name), initializer_range=0.1)
    module = TrainedDecoder(config, policy("fp32"))
    initialise(module, config, 3)
    return module


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-v3"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(FP32, 1e-4), (BF16, 0.03), (FP8, 0.35)], ids=["fp32", "bf16", "fp8"])
def test_what_training_saves_is_served(name: str, dtype: Precision, tolerance: float, tmp_path: Path) -> None:
    """Multi-token prediction, which tiny-v3 has, is left aside."""
    module = _trained(name)
    save_hf(tmp_path, module.config, whole_tensors(module), dtype, max_file_bytes=10**6)
    with torch.inference_mode():
        wanted = module(torch.tensor([TOKENS])).logits[0].float()
    got = OneRank(tmp_path).logits(TOKENS, [25, 15])
    assert (got - wanted).norm() < tolerance * wanted.norm()


@pytest.mark.parametrize("family", ["llama", "qwen2", "deepseek_v3"])
def test_fp8_computes_what_its_values_say_whole_and_cut(family: str, tmp_path: Path) -> None:
    coded, values = _fp8_folders(tmp_path, family)
    wanted = oracle_logits(values, TOKENS)
    for model in (OneRank(coded), ManyRanks(coded, tensor=2, pipeline=1)):
        torch.testing.assert_close(model.logits(TOKENS, [40]), wanted, atol=2e-4, rtol=2e-4)


def test_fp8_projections_take_a_byte_a_number_and_their_size_is_known_before(tmp_path: Path) -> None:
    coded, values = _fp8_folders(tmp_path, "llama")
    model, plain = OneRank(coded), OneRank(values)
    assert model.weight_bytes == weight_bytes(read_config(coded), ModelPlace(), torch.float32)
    config = model.config
    in_projections = config.hidden_size * (4 * config.hidden_size + 3 * config.intermediate_size) * config.layers
    saved = plain.weight_bytes - model.weight_bytes
    # One scale of four bytes for 128 numbers stays.
    assert 0.97 * 3 * in_projections < saved < 3 * in_projections


def _fp8_folders(tmp_path: Path, family: str) -> tuple[Path, Path]:
    """A folder with E4M3 projections, and one in fp32 with the very values that those stand for."""
    sizes = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 4}
    own = {"head_dim": 64} if family == "llama" else {}
    coded, values = (
        write_model(tmp_path / name, family, tokenizer=False, initializer_range=0.1, **(sizes | own))
        for name in ("coded", "values")
    )
    tensors = load_file(values / "model.safetensors")
    plain = dict(tensors)
    for name in [name for name in tensors if "_proj" in name and name.endswith(".weight")]:
        codes = quantise_blocks(tensors[name], name)
        tensors[name], tensors[f"{name}_scale_inv"] = codes.data, codes.scale
        plain[name] = dequantise(QTensor(codes.data, codes.scale))
    save_file(tensors, coded / "model.safetensors", metadata={"format": "pt"})
    save_file(plain, values / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((coded / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    (coded / "config.json").write_text(json.dumps(config))
    return coded, values


@pytest.mark.parametrize("family", FAMILIES)
def test_in_bf16_logits_are_near_those_of_fp32(family: str) -> None:
    folder = tiny_folder(family)
    wanted = oracle_logits(folder, TOKENS)
    model = OneRank(folder, dtype=torch.bfloat16)
    got = model.logits(TOKENS, [20, 19, 1])
    assert got.dtype is torch.float32
    # An expert that is chosen otherwise changes a token's logits at once.
    assert (got - wanted).norm(dim=1).median() < 0.05 * wanted.norm(dim=1).median()
    assert model.weight_bytes < 0.52 * OneRank(folder).weight_bytes


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_that_moves_leaves_no_tensor_behind(family: str) -> None:
    decoder = OneRank(tiny_folder(family), dtype=torch.bfloat16).decoder
    moved = {id(tensor) for tensor in decoder._tensors}
    assert [tuple(tensor.shape) for tensor in _tensors(decoder, set()) if id(tensor) not in moved] == []


def _tensors(thing: Any, seen: set[int]) -> list[Any]:
    """All that can be reached from a decoder."""
    if isinstance(thing, torch.Tensor):
        return [thing]
    if id(thing) in seen or isinstance(thing, str | int | float | type):
        return []
    seen.add(id(thing))
    if isinstance(thing, list | tuple):
        parts = list(thing)
    elif type(thing).__module__.startswith("job_wrappers.serving.models"):
        names = [*getattr(thing, "__slots__", ()), *getattr(thing, "__dict__", {})]
        parts = [getattr(thing, name) for name in names if hasattr(thing, name)]
    else:
        return []
    return [tensor for part in parts for tensor in _tensors(part, seen)]


@pytest.mark.parametrize(
    ("stored", "asked", "used"),
    [
        ("float32", "auto", torch.float32),
        ("bfloat16", "auto", torch.bfloat16),
        ("float16", "auto", torch.bfloat16),
        ("bfloat16", "fp32", torch.float32),
        ("float32", "bf16", torch.bfloat16),
    ],
)
def test_numbers_are_as_stored_unless_asked_otherwise(stored: str, asked: str, used: Any) -> None:
    config = replace(read_config(tiny_folder("llama")), stored_dtype=stored)
    assert torch_dtype(config, asked) is used


@pytest.mark.parametrize(
    ("family", "changes", "longest"),
    [
        ("mistral", {"sliding_window": 64}, 64),
        ("mistral", {"sliding_window": None}, 1024),
        ("qwen2", {"sliding_window": 64, "use_sliding_window": False}, 1024),
        ("qwen2", {"sliding_window": 64, "use_sliding_window": True, "max_window_layers": 1}, 64),
    ],
)
def test_a_sliding_window_is_never_exceeded(family: str, changes: dict[str, Any], longest: int) -> None:
    folder = tiny_folder(family, 3, json.dumps(changes))
    assert read_config(folder).max_positions == longest
    torch.testing.assert_close(
        OneRank(folder).logits(TOKENS, [40]), oracle_logits(folder, TOKENS), atol=1e-4, rtol=1e-4
    )


def test_a_folder_with_a_broken_index_is_named(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", "llama", tokenizer=False)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"lm_head.weight": "gone.safetensors"}}')
    with pytest.raises(ConfigError, match="is missing"):
        OneRank(folder)
    (folder / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(ConfigError, match="cannot be read"):
        OneRank(folder)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", "llama", tokenizer=False)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ConfigError, match="cannot be read"):
        OneRank(folder)


def test_a_tensor_of_another_shape_is_named(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", "llama", tokenizer=False)
    values = json.loads((folder / "config.json").read_text()) | {"intermediate_size": 96}
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=r"gate_proj\.weight is \[128, 64\], config\.json says \[96, 64\]"):
        OneRank(folder)
