"""Our decoders against transformers' in FP32: logits, loss and every gradient; multi-token prediction against a
reference put together from transformers' parts, because its own model leaves that out."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tests.training.rank_functions_model import build, loud, pass_once, random_tokens  # noqa: E402
from training.model.config import ModelConfig  # noqa: E402
from training.model.decoder import loss  # noqa: E402
from training.model.hf_names import named_shards, whole_tensors  # noqa: E402
from training.model.presets import preset  # noqa: E402
from training.model.rope_config import Rope  # noqa: E402

pytestmark = pytest.mark.torch

YARN = Rope(kind="yarn", factor=8.0, original_max_position_embeddings=64, mscale=1.0, mscale_all_dim=0.7)
YARN_PLAIN = Rope(kind="yarn", factor=4.0, original_max_position_embeddings=64, beta_fast=16.0, beta_slow=2.0)
LLAMA3 = Rope(
    kind="llama3",
    factor=8.0,
    original_max_position_embeddings=64,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    theta=5e5,
)

CONFIGS = {
    "v3": loud(preset("tiny-v3")),
    "v3-groups": loud(preset("small-v3")),
    "v3-no-query-compression": loud(replace(preset("tiny-v3"), q_lora_rank=None)),
    "v3-halves-rotated": loud(replace(preset("tiny-v3"), rope_interleave=False)),
    "v3-yarn": loud(replace(preset("tiny-v3"), rope=YARN)),
    "v3-yarn-plain": loud(replace(preset("tiny-v3"), rope=YARN_PLAIN)),
    "v3-unnormed-weights": loud(replace(preset("tiny-v3"), norm_topk_prob=False, routed_scaling_factor=2.5)),
    "v3-odd-widths": loud(replace(preset("tiny-v3"), hidden_size=96, moe_intermediate_size=80, v_head_dim=24)),
    "llama": loud(preset("tiny-llama")),
    "llama-tied": loud(replace(preset("tiny-llama"), tie_word_embeddings=True)),
    "llama-3-rope": loud(replace(preset("tiny-llama"), rope=LLAMA3)),
    "llama-linear-rope": loud(replace(preset("tiny-llama"), rope=Rope(kind="linear", factor=4.0))),
}


def _ours(config: ModelConfig):
    module = build(config, "fp32")
    generator = torch.Generator().manual_seed(3)
    for shard in named_shards(module):
        if shard.hf_name.endswith(("norm.weight", "e_score_correction_bias")):
            noise = torch.randn(shard.part.shape, generator=generator)
            with torch.no_grad():
                shard.local.add_(0.1 * noise)
    return module


def _theirs(config: ModelConfig, tensors: dict[str, torch.Tensor]):
    """transformers' model with our values; the experts' weights are one tensor there."""
    values = config.to_hf()
    hf_config = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    model = transformers.AutoModelForCausalLM.from_config(hf_config, attn_implementation="eager")
    model.load_state_dict({name: _whole(name, config, tensors) for name in model.state_dict()})
    return model


def _whole(name: str, config: ModelConfig, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    prefix, _, last = name.rpartition(".")
    if name == "lm_head.weight" and config.tie_word_embeddings:
        return tensors["model.embed_tokens.weight"]
    if last == "gate_up_proj":
        gate_up = [
            [tensors[f"{prefix}.{e}.{half}.weight"] for half in ("gate_proj", "up_proj")] for e in _experts(config)
        ]
        return torch.stack([torch.cat(halves) for halves in gate_up])
    if last == "down_proj":
        return torch.stack([tensors[f"{prefix}.{e}.down_proj.weight"] for e in _experts(config)])
    return tensors[name]


def _experts(config: ModelConfig) -> range:
    return range(config.n_routed_experts)


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_loss_and_gradients_agree_with_transformers(name):
    config = replace(CONFIGS[name], mtp_loss_weight=0.0)
    module, tokens = _ours(config), random_tokens(config, length=96)
    model = _theirs(config, whole_tensors(module))
    mine = pass_once(module, tokens)

    logits = model(tokens[:, :-1]).logits
    assert logits.abs().max() > 1.0  # otherwise the next line would prove little
    torch.testing.assert_close(mine.logits[0], logits, atol=1e-4, rtol=1e-4)

    expected = model.loss_function(logits, None, config.vocab_size, shift_labels=tokens[:, 1:].contiguous())
    assert mine.loss == pytest.approx(expected.item(), abs=1e-4)

    expected.backward()
    compared = 0
    for theirs, parameter in model.named_parameters():
        scale = parameter.grad.abs().max().clamp(min=1e-12)
        torch.testing.assert_close(
            _whole(theirs, config, mine.gradients) / scale, parameter.grad / scale, atol=1e-4, rtol=0
        )
        compared += 1
    assert compared == len(list(model.parameters()))


@pytest.mark.parametrize("depths", [1, 2])
def test_multi_token_prediction_agrees_with_a_reference(depths):
    config = replace(CONFIGS["v3"], num_nextn_predict_layers=depths, mtp_loss_weight=0.4)
    module, tokens = _ours(config), random_tokens(config, length=64)
    tensors = {name: tensor.clone().requires_grad_() for name, tensor in whole_tensors(module).items()}
    mine = pass_once(module, tokens)

    logits, value = _reference(config, tensors, tokens)
    for depth in range(depths):
        # The last positions predict what lies behind the end: nobody reads them.
        kept = tokens.shape[1] - 1 - (depth + 1)
        torch.testing.assert_close(mine.logits[1 + depth][:, :kept], logits[depth][:, :kept], atol=1e-4, rtol=1e-4)
    assert mine.loss == pytest.approx(value.item(), abs=1e-4)

    value.backward()
    for name, gradient in mine.gradients.items():
        scale = tensors[name].grad.abs().max().clamp(min=1e-12)
        torch.testing.assert_close(gradient / scale, tensors[name].grad / scale, atol=1e-4, rtol=0)


def _reference(config: ModelConfig, tensors: dict[str, torch.Tensor], tokens: torch.Tensor):
    """Logits of each depth, and the whole loss, by arXiv 2412.19437, section 2.2, in plain torch."""
    from torch.func import functional_call
    from transformers.models.deepseek_v3 import modeling_deepseek_v3 as hf

    model = _theirs(replace(config, num_nextn_predict_layers=0), tensors)
    inputs, labels = tokens[:, :-1], tokens[:, 1:]
    length = inputs.shape[1]
    mask = torch.full((length, length), float("-inf")).triu(1)[None, None]
    hidden = functional_call(
        model.model, {name: _whole(f"model.{name}", config, tensors) for name in model.model.state_dict()}, (inputs,)
    ).last_hidden_state
    rotation = model.model.rotary_emb(hidden, torch.arange(length)[None])
    block = hf.DeepseekV3DecoderLayer(model.config, config.num_hidden_layers)
    block.self_attn.config._attn_implementation = "eager"

    def norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return weight * x / (x.square().mean(-1, keepdim=True) + config.rms_norm_eps).sqrt()

    def entropy(found: torch.Tensor, shifted_by: int) -> torch.Tensor:
        kept = length - shifted_by
        return torch.nn.functional.cross_entropy(found[:, :kept].flatten(0, 1), labels[:, shifted_by:].flatten())

    head = tensors["lm_head.weight"]
    value, logits = entropy(hidden @ head.T, 0), []
    for depth in range(1, config.num_nextn_predict_layers + 1):
        prefix = f"model.layers.{config.num_hidden_layers + depth - 1}."
        padded = torch.cat([inputs[:, depth:], torch.zeros_like(inputs[:, :depth])], dim=1)
        embedded = norm(tensors["model.embed_tokens.weight"][padded], tensors[f"{prefix}enorm.weight"])
        joined = torch.cat([embedded, norm(hidden, tensors[f"{prefix}hnorm.weight"])], dim=-1)
        hidden = joined @ tensors[f"{prefix}eh_proj.weight"].T
        values = {name: _whole(f"{prefix}{name}", config, tensors) for name in block.state_dict()}
        kwargs = {"attention_mask": mask, "position_embeddings": rotation}
        hidden = functional_call(block, values, (hidden,), kwargs)
        hidden = norm(hidden, tensors[f"{prefix}shared_head.norm.weight"])
        logits.append(hidden @ head.T)
        value = value + config.mtp_loss_weight / config.num_nextn_predict_layers * entropy(logits[-1], depth)
    return logits, value


def test_ignored_labels_do_not_count():
    config = CONFIGS["v3"]
    module, tokens = _ours(config), random_tokens(config, length=32)
    labels = tokens[:, 1:].clone()
    labels[:, :20] = -100
    outputs = module(tokens[:, :-1])
    entropy = torch.nn.functional.cross_entropy
    expected = entropy(outputs.logits.transpose(1, 2), labels)
    further = torch.cat([labels[:, 1:], torch.full_like(labels[:, :1], -100)], dim=1)
    expected = expected + config.mtp_loss_weight * entropy(outputs.mtp_logits[0].transpose(1, 2), further)
    assert loss(outputs, labels, config).item() == pytest.approx(expected.item(), abs=1e-5)


def test_a_batch_without_any_label_has_loss_zero_and_no_gradient():
    config = CONFIGS["llama"]
    module, tokens = _ours(config), random_tokens(config, length=16)
    value = loss(module(tokens), torch.full_like(tokens, -100), config)
    value.backward()
    assert value.item() == 0.0
    assert all(parameter.grad.abs().max() == 0.0 for parameter in module.parameters())
