"""Hugging Face folders: transformers reads what we write, we read it back; what we cannot read we say in one line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402

from tests.training.rank_functions_model import build, loud, random_tokens  # noqa: E402
from training.errors import ConfigError, StorageError  # noqa: E402
from training.fp8.quantise import QTensor, dequantise  # noqa: E402
from training.model import hf_folder  # noqa: E402
from training.model.decoder import Decoder  # noqa: E402
from training.model.hf_folder import load_hf, save_hf  # noqa: E402
from training.model.hf_names import load_tensors, whole_tensors  # noqa: E402
from training.model.presets import preset  # noqa: E402
from training.precision import BF16, FP8, FP32, policy  # noqa: E402

pytestmark = pytest.mark.torch

V3 = loud(preset("tiny-v3"))
CONFIGS = {
    "v3": V3,
    "v3-no-mtp": replace(V3, num_nextn_predict_layers=0, q_lora_rank=None),
    "llama": loud(preset("tiny-llama")),
    "llama-tied": loud(replace(preset("tiny-llama"), tie_word_embeddings=True)),
}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A V3 folder in FP32."""
    save_hf(tmp_path, V3, whole_tensors(build(V3, "fp32")), FP32)
    return tmp_path


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("max_file_bytes", [5 * 10**9, 10**6])
def test_transformers_loads_what_we_save_and_gives_the_same_logits(name, max_file_bytes, tmp_path):
    config = CONFIGS[name]
    module, tokens = build(config, "fp32"), random_tokens(config, length=48)
    save_hf(tmp_path, config, whole_tensors(module), FP32, max_file_bytes=max_file_bytes)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    assert model.dtype is torch.float32
    torch.testing.assert_close(module(tokens).logits, model(tokens).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_we_save_we_read_back_bit_for_bit(name, tmp_path):
    config = CONFIGS[name]
    tensors = whole_tensors(build(config, "fp32"))
    save_hf(tmp_path, config, tensors, FP32, max_file_bytes=10**6)
    read_config, read = load_hf(tmp_path)
    assert read_config == config
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)
    load_tensors(Decoder(config, policy("fp32")), read)


def test_a_model_that_transformers_saved_can_be_read(tmp_path):
    config = replace(V3, num_nextn_predict_layers=0)
    values = config.to_hf()
    hf_config = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    model = transformers.AutoModelForCausalLM.from_config(hf_config)
    model.save_pretrained(tmp_path)
    read_config, read = load_hf(tmp_path)
    module, tokens = Decoder(read_config, policy("fp32")), random_tokens(config, length=48)
    load_tensors(module, read)
    torch.testing.assert_close(module(tokens).logits, model(tokens).logits, atol=1e-4, rtol=1e-4)


def test_files_are_split_and_the_index_names_each_tensor_once(tmp_path):
    save_hf(tmp_path, V3, whole_tensors(build(V3, "fp32")), BF16, max_file_bytes=10**6)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert files == sorted(set(index["weight_map"].values()))
    assert len(files) > 3
    assert all((tmp_path / file).stat().st_size < 1.1e6 for file in files)
    contents = {name: file for file in files for name in load_file(tmp_path / file)}
    assert contents == index["weight_map"]
    assert {p.suffix for p in tmp_path.iterdir()} == {".safetensors", ".json"}


def test_multi_token_prediction_goes_by_its_published_names(saved):
    names = json.loads((saved / "model.safetensors.index.json").read_text())["weight_map"]
    extras = {name.removeprefix("model.layers.3.") for name in names if name.startswith("model.layers.3.")}
    own = ("enorm", "hnorm", "eh_proj", "shared_head.norm", "shared_head.head", "embed_tokens")
    assert extras >= {f"{name}.weight" for name in own}
    assert extras >= {"mlp.gate.e_score_correction_bias", "self_attn.kv_a_proj_with_mqa.weight"}


def test_fp8_is_stored_as_deepseek_stores_it(tmp_path):
    tensors = whole_tensors(build(V3, "fp32"))
    save_hf(tmp_path, V3, tensors, FP8)
    stored = load_file(next(tmp_path.glob("*.safetensors")))
    fp8 = {name for name, tensor in stored.items() if tensor.dtype is torch.float8_e4m3fn}
    assert {f"{name}_scale_inv" for name in fp8} == {name for name in stored if name.endswith("_scale_inv")}
    assert "model.layers.1.mlp.experts.0.gate_proj.weight" in fp8
    assert "model.layers.0.self_attn.kv_a_proj_with_mqa.weight" in fp8
    for kept in ("model.layers.1.mlp.gate", "model.layers.3.eh_proj", "lm_head", "model.norm", "model.embed_tokens"):
        assert stored[f"{kept}.weight"].dtype is torch.bfloat16
    assert stored["model.layers.1.mlp.gate.e_score_correction_bias"].dtype is torch.float32
    assert stored["model.layers.0.self_attn.kv_a_proj_with_mqa.weight_scale_inv"].shape == (2, 1)  # 192 rows
    assert json.loads((tmp_path / "config.json").read_text())["quantization_config"] == {
        "quant_method": "fp8",
        "fmt": "e4m3",
        "activation_scheme": "dynamic",
        "weight_block_size": [128, 128],
    }


def test_fp8_comes_back_as_the_values_it_was_rounded_to(tmp_path):
    tensors = whole_tensors(build(V3, "fp32"))
    save_hf(tmp_path, V3, tensors, FP8)
    _, read = load_hf(tmp_path)
    stored = load_file(next(tmp_path.glob("*.safetensors")))
    for name, tensor in tensors.items():
        values = read[name].float()
        if f"{name}_scale_inv" in stored:
            assert torch.equal(values, dequantise(QTensor(stored[name], stored[f"{name}_scale_inv"])))
            assert ((values - tensor).norm() / tensor.norm()) < 0.04
        elif not name.endswith("e_score_correction_bias"):
            assert torch.equal(values, tensor.bfloat16().float())
    again = tmp_path / "again"
    save_hf(again, V3, read, FP8)
    restored = load_file(next(again.glob("*.safetensors")))
    for name in stored:
        assert torch.equal(restored[name].view(torch.uint8), stored[name].view(torch.uint8)) or "scale_inv" in name


def test_transformers_reads_our_fp8(tmp_path):
    pytest.importorskip("accelerate")
    # Whole blocks only: transformers 5.23 spreads the scales of 192 rows over two blocks of 96.
    config = replace(V3, qk_rope_head_dim=128, num_nextn_predict_layers=0)
    module, tokens = build(config, "fp32"), random_tokens(config, length=48)
    save_hf(tmp_path, config, whole_tensors(module), FP8)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    ours = Decoder(config, policy("fp32"))
    load_tensors(ours, load_hf(tmp_path)[1])
    error = model(tokens).logits.float() - ours(tokens).logits
    assert error.norm() / ours(tokens).logits.norm() < 0.03  # transformers computes in BF16 here


def _change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _drop(folder: Path, names: list[str]) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    for name in names:
        del index["weight_map"][name]
    path.write_text(json.dumps(index))


def _add_bias(folder: Path) -> None:
    save_file({"model.layers.0.self_attn.q_b_proj.bias": torch.zeros(2)}, folder / "more.safetensors")
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.layers.0.self_attn.q_b_proj.bias"] = "more.safetensors"
    path.write_text(json.dumps(index))


def _truncate(folder: Path) -> None:
    path = next(folder.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:1000])


MTP = ["enorm.weight", "hnorm.weight", "eh_proj.weight", "shared_head.norm.weight"]
REFUSED = {
    "no-config": (lambda f: (f / "config.json").unlink(), "has no config.json"),
    "broken-config": (lambda f: (f / "config.json").write_text("{"), "config.json cannot be read: "),
    "list-config": (lambda f: (f / "config.json").write_text("[]"), "config.json holds no object"),
    "missing": (lambda f: _drop(f, ["lm_head.weight"]), "1 tensors are missing, the first is lm_head.weight"),
    "no-mtp": (
        lambda f: _drop(f, [f"model.layers.3.{name}" for name in MTP]),
        "4 tensors are missing, the first is model.layers.3.enorm.weight; num_nextn_predict_layers = 0 in config.json "
        "leaves multi-token prediction out",
    ),
    "unknown": (_add_bias, "1 tensors are unknown, the first is model.layers.0.self_attn.q_b_proj.bias"),
    "shape": (
        lambda f: _change_config(f, intermediate_size=384),
        "model.layers.0.mlp.gate_proj.weight is [256, 128], config.json says [384, 128]",
    ),
    "method": (
        lambda f: _change_config(f, quantization_config={"quant_method": "awq"}),
        "quantised as awq [128, 128], only fp8 [128, 128] can be read",
    ),
    "file": (lambda f: next(f.glob("*.safetensors")).unlink(), "is missing, model.safetensors.index.json names it"),
    "truncated": (_truncate, "model-00001-of-00001.safetensors cannot be read: "),
    "empty": (
        lambda f: (f / "model.safetensors.index.json").unlink(),
        "has neither model.safetensors.index.json nor model.safetensors",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_folder_we_cannot_read_is_refused_in_one_line(name, saved):
    spoil, message = REFUSED[name]
    spoil(saved)
    with pytest.raises(ConfigError) as error:
        load_hf(saved)
    assert str(error.value).startswith(f"model.folder = {saved}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_family_is_refused(saved):
    _change_config(saved, model_type="gpt2")
    with pytest.raises(ConfigError, match="model_type = gpt2: must be one of deepseek_v3, llama"):
        load_hf(saved)


def test_an_older_model_in_the_folder_is_replaced(saved):
    config = CONFIGS["llama"]
    (saved / "model.safetensors").write_bytes(b"transformers would read this one first")
    save_hf(saved, config, whole_tensors(build(config, "fp32")), BF16, max_file_bytes=10**6)
    assert load_hf(saved)[0] == config
    index = json.loads((saved / "model.safetensors.index.json").read_text())
    assert {path.name for path in saved.glob("*.safetensors")} == set(index["weight_map"].values())


def test_half_a_model_is_not_written(tmp_path):
    tensors = whole_tensors(build(V3, "fp32"))
    del tensors["model.norm.weight"]
    with pytest.raises(ConfigError, match=r"1 tensors are missing, the first is model\.norm\.weight"):
        save_hf(tmp_path / "out", V3, tensors, FP32)
    assert not (tmp_path / "out").exists()


def test_a_disk_that_fills_up_leaves_no_model_and_no_rest(saved, monkeypatch):
    def save_two(tensors, path, metadata):
        if path.name == "writing-2.tmp":
            raise OSError(28, "No space left on device")
        save_file(tensors, path, metadata=metadata)

    monkeypatch.setattr(hf_folder, "save_file", save_two)
    with pytest.raises(StorageError, match="No space left on device"):
        save_hf(saved, V3, whole_tensors(build(V3, "fp32")), FP32, max_file_bytes=10**6)
    assert not list(saved.glob("*.tmp"))
    with pytest.raises(ConfigError, match=r"has no config\.json"):
        load_hf(saved)


def test_a_disk_that_refuses_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write"):
        save_hf(tmp_path / "file", V3, whole_tensors(build(V3, "fp32")), FP32)
