"""A model's sizes: read from and written to config.json, counted, and checked against how a plan cuts them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from training.errors import ConfigError
from training.model.config import ModelConfig
from training.model.presets import PRESETS, preset
from training.model.rope_config import Rope

# deepseek-ai/DeepSeek-V3, config.json, what matters here
DEEPSEEK_V3: dict[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "ep_size": 1,
    "first_k_dense_replace": 3,
    "hidden_act": "silu",
    "hidden_size": 7168,
    "initializer_range": 0.02,
    "intermediate_size": 18432,
    "kv_lora_rank": 512,
    "max_position_embeddings": 163840,
    "model_type": "deepseek_v3",
    "moe_intermediate_size": 2048,
    "moe_layer_freq": 1,
    "n_group": 8,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_attention_heads": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 61,
    "num_key_value_heads": 128,
    "num_nextn_predict_layers": 1,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "rms_norm_eps": 1e-06,
    "rope_scaling": {
        "beta_fast": 32,
        "beta_slow": 1,
        "factor": 40,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 4096,
        "type": "yarn",
    },
    "rope_theta": 10000,
    "routed_scaling_factor": 2.5,
    "scoring_func": "sigmoid",
    "tie_word_embeddings": False,
    "topk_group": 4,
    "topk_method": "noaux_tc",
    "v_head_dim": 128,
    "vocab_size": 129280,
}


def test_the_published_deepseek_v3_config_is_our_preset():
    assert ModelConfig.from_hf(DEEPSEEK_V3) == preset("deepseek-v3")


@pytest.mark.parametrize("name", PRESETS)
def test_what_we_write_we_read_back(name):
    assert ModelConfig.from_hf(PRESETS[name].to_hf()) == PRESETS[name]


def test_deepseek_v3_has_671_billion_parameters_beside_its_multi_token_prediction():
    config = preset("deepseek-v3")
    main = replace(config, num_nextn_predict_layers=0)
    assert main.parameter_count() / 1e9 == pytest.approx(671.03, abs=0.01)
    assert (config.parameter_count() - main.parameter_count()) / 1e9 == pytest.approx(11.6, abs=0.1)
    assert main.parameter_count(active=True) / 1e9 == pytest.approx(37.6, abs=0.1)


def test_llama_3_8b_has_8_billion_parameters():
    assert preset("llama-3-8b").parameter_count() == 8_030_261_248


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "mixtral"}, "model_type = mixtral: must be one of deepseek_v3, llama"),
        ({"hidden_act": "gelu"}, "hidden_act = gelu: only silu can be computed"),
        ({"attention_bias": True}, "attention_bias = True: only False can be computed"),
        ({"scoring_func": "softmax"}, "scoring_func = softmax: only sigmoid can be computed"),
        ({"hidden_size": None}, "config.json: hidden_size is missing"),
        ({"kv_lora_rank": None}, "config.json: kv_lora_rank is missing"),
        ({"rope_scaling": {"type": "longrope"}}, "rope_type = longrope: must be one of default, linear, yarn, llama3"),
        ({"rope_scaling": {"type": "yarn"}}, "rope_scaling: yarn needs factor"),
        ({"n_group": 7}, "n_group = 7: must divide n_routed_experts = 256"),
        ({"topk_group": 9}, "topk_group = 9: must be within n_group = 8"),
        (
            {"num_experts_per_tok": 200},
            "num_experts_per_tok = 200: must be within the 128 experts of the 4 best groups",
        ),
        ({"vocab_size": 0}, "vocab_size = 0: must be positive"),
    ],
)
def test_a_config_we_cannot_build_is_refused_in_one_line(change, message):
    with pytest.raises(ConfigError) as error:
        ModelConfig.from_hf(DEEPSEEK_V3 | change)
    assert str(error.value) == message


def test_rope_parameters_of_transformers_5_mean_the_same():
    old = {"rope_theta": 5e5, "rope_scaling": {"rope_type": "linear", "factor": 4.0}}
    new = {"rope_parameters": {"rope_type": "linear", "rope_theta": 5e5, "factor": 4.0}}
    assert Rope.from_hf(old) == Rope.from_hf(new) == Rope(kind="linear", theta=5e5, factor=4.0)


def test_transformers_5_names_of_sizes_are_known():
    values = dict(DEEPSEEK_V3)
    values["num_mtp_layers"] = values.pop("num_nextn_predict_layers")
    values["num_local_experts"] = values.pop("n_routed_experts")
    assert ModelConfig.from_hf(values) == preset("deepseek-v3")


@pytest.mark.parametrize("name", ["tiny-v3", "small-v3", "tiny-llama"])
def test_the_small_presets_can_be_cut_in_two(name):
    preset(name).check_cuts(tensor=2, expert=2 if preset(name).has_experts else 1)


@pytest.mark.parametrize(
    ("name", "cuts", "message"),
    [
        ("tiny-v3", {"tensor": 3}, "parallel.tensor = 3: must divide the 4 heads of keys and values"),
        (
            "tiny-v3",
            {"tensor": 4},
            "parallel.tensor = 4: must cut num_attention_heads * v_head_dim = 256 into multiples of 128",
        ),
        ("tiny-v3", {"tensor": 1, "expert": 3}, "parallel.expert = 3: must divide n_routed_experts = 4"),
        ("tiny-llama", {"tensor": 1, "expert": 2}, "parallel.expert = 2: the model has no experts"),
        ("tiny-llama", {"tensor": 0}, "parallel.tensor = 0: must be positive"),
    ],
)
def test_a_cut_through_a_head_or_a_block_is_refused_in_one_line(name, cuts, message):
    with pytest.raises(ConfigError) as error:
        preset(name).check_cuts(**cuts)
    assert str(error.value) == message


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"model.preset = tiny: must be one of tiny-v3, tiny-llama, "):
        preset("tiny")
