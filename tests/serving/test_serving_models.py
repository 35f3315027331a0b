"""Every family's logits are those of transformers, however the prompt is cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from job_wrappers.serving.attention.choose import choose_attention  # noqa: E402
from job_wrappers.serving.errors import ConfigError  # noqa: E402
from job_wrappers.serving.models.build import read_config, weight_bytes  # noqa: E402
from job_wrappers.serving.models.place import ModelPlace  # noqa: E402
from tests.serving.one_rank import OneRank, step_of  # noqa: E402
from tests.serving.tiny_models import FAMILIES, oracle_logits, tiny_folder, write_model  # noqa: E402

pytestmark = pytest.mark.torch

TOKENS = [int(t) for t in torch.randint(2, 500, (45,), generator=torch.Generator().manual_seed(3))]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("attention", ["reference", "auto"])
def test_logits_are_those_of_transformers_at_once_in_chunks_and_token_by_token(family: str, attention: str) -> None:
    folder = tiny_folder(family)
    model = OneRank(folder, attention=choose_attention(torch.device("cpu"), attention))
    wanted = oracle_logits(folder, TOKENS)
    for chunks in ([45], [17, 16, 12], [1] * 45):
        torch.testing.assert_close(model.logits(TOKENS, chunks), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {"tie_word_embeddings": True}),
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}}),
        ("qwen3", {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0,
                                       "original_max_position_embeddings": 256}}),
        ("llama", {"rope_parameters": {"rope_type": "llama3", "factor": 8.0, "rope_theta": 500000.0,
                                       "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                       "original_max_position_embeddings": 32}}),
        ("deepseek_v3", {"q_lora_rank": None}),
        ("deepseek_v3", {"rope_interleave": False}),
        ("deepseek_v3", {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0, "mscale": 0.7,
                                             "mscale_all_dim": 1.0, "original_max_position_embeddings": 256}}),
        ("deepseek_v3", {"n_group": 1, "topk_group": 1, "norm_topk_prob": False}),
    ],
    ids=["tied", "biases", "rope-linear", "rope-yarn", "rope-llama3", "one-query", "halves", "mscale", "one-group"],
)  # fmt: skip
def test_variants_of_a_family_agree_too(family: str, changes: dict[str, Any]) -> None:
    folder = tiny_folder(family, 1, json.dumps(changes))
    torch.testing.assert_close(
        OneRank(folder).logits(TOKENS, [30, 15]), oracle_logits(folder, TOKENS), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_the_size_of_the_weights_is_known_before_they_are_read(family: str) -> None:
    folder = tiny_folder(family)
    told = weight_bytes(read_config(folder), ModelPlace(), torch.float32)
    assert told == OneRank(folder).weight_bytes


def test_a_step_gives_logits_of_the_rows_that_ask_for_them() -> None:
    """Two decodes and two chunks of prompts in one step, three of which sample."""
    folder = tiny_folder("deepseek_v3")
    sequences = [TOKENS[:20], TOKENS[5:22], TOKENS[10:45], TOKENS[:33]]
    before = [19, 16, 17, 0]
    model = OneRank(folder)
    tables = [np.arange(first, 40, 4) for first in range(4)]
    for tokens, count, table in zip(sequences, before, tables, strict=True):
        if count:
            assert model.forward(step_of([(tokens, 0, count, table)], rows=[])).shape == (0, 512)
    parts = [
        (tokens, count, len(tokens), table) for tokens, count, table in zip(sequences, before, tables, strict=True)
    ]
    starts = [0, 1, 2, 2 + 18]
    got = model.forward(step_of(parts, rows=[0, 1, starts[3] + 32]))
    wanted = torch.stack([oracle_logits(folder, sequences[i])[-1] for i in (0, 1, 3)])
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "model_type = gpt2"),
        ({"hidden_act": "gelu"}, "hidden_act = gelu"),
        ({"num_hidden_layers": None}, "num_hidden_layers is missing"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ({"num_key_value_heads": 3}, "num_key_value_heads = 3: must divide 4"),
    ],
)
def test_a_config_that_cannot_be_served_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    values = json.loads((tiny_folder("llama") / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=message):
        read_config(tmp_path)


def test_a_folder_that_lacks_a_tensor_is_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = write_model(tmp_path / "m", "llama", tokenizer=False)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ConfigError, match=r"model\.layers\.1\.mlp\.up_proj\.weight is missing"):
        OneRank(folder)


def test_a_layer_with_something_unknown_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = write_model(tmp_path / "m", "llama", tokenizer=False)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.self_attn.sinks"] = torch.zeros(4)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ConfigError, match="1 tensors are not known here"):
        OneRank(folder)
