"""First values depend on seed, name and shape alone."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from tests.training.rank_functions_model import build  # noqa: E402
from training.errors import ConfigError  # noqa: E402
from training.model.decoder import Decoder  # noqa: E402
from training.model.hf_names import expected_shapes, load_tensors, named_shards, whole_tensors  # noqa: E402
from training.model.initialise import first_value, initialise  # noqa: E402
from training.model.presets import preset  # noqa: E402
from training.parallel.context import Axis, ParallelContext  # noqa: E402
from training.precision import policy  # noqa: E402

pytestmark = pytest.mark.torch

TINY = preset("tiny-v3")


def _cut(tensor_rank: int, expert_rank: int) -> ParallelContext:
    """As one of 2 x 2 ranks, without any group: nothing communicates while values are drawn."""
    return ParallelContext(tensor=Axis("tensor", tensor_rank, 2), expert=Axis("expert", expert_rank, 2))


def test_the_pieces_of_all_ranks_make_up_the_whole_model():
    whole = whole_tensors(build(TINY, "fp32"))
    rebuilt = {name: torch.full(tensor.shape, float("nan")) for name, tensor in whole.items()}
    for tensor_rank in range(2):
        for expert_rank in range(2):
            for shard in named_shards(build(TINY, "fp32", _cut(tensor_rank, expert_rank))):
                shard.cut(rebuilt[shard.hf_name]).copy_(shard.local.detach())
    assert all(torch.equal(rebuilt[name], whole[name]) for name in whole)


def test_two_seeds_give_two_models_and_one_seed_gives_one():
    one, same, other = (whole_tensors(build(TINY, "fp32", seed=seed)) for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["lm_head.weight"], other["lm_head.weight"])


def test_values_stay_the_same_from_one_version_to_the_next():
    first = first_value("lm_head.weight", (2, 2), TINY, seed=0)
    assert first.flatten().tolist() == pytest.approx(FROZEN, rel=1e-6)


FROZEN = [-0.035420432686805725, 0.01670469529926777, 0.028531521558761597, -0.004179185722023249]


def test_matrices_have_the_configured_spread_and_norms_are_one():
    tensors = whole_tensors(build(TINY, "fp32"))
    assert tensors["model.embed_tokens.weight"].std().item() == pytest.approx(0.02, rel=0.02)
    assert tensors["model.layers.1.mlp.experts.3.down_proj.weight"].std().item() == pytest.approx(0.02, rel=0.02)
    assert tensors["model.layers.0.self_attn.kv_a_layernorm.weight"].eq(1).all()
    assert tensors["model.layers.1.mlp.gate.e_score_correction_bias"].eq(0).all()


@pytest.mark.parametrize("name", ["tiny-v3", "small-v3", "tiny-llama"])
def test_a_model_holds_as_many_values_as_its_config_counts(name):
    config = preset(name)
    module = build(config, "bf16")
    assert sum(parameter.numel() for parameter in module.parameters()) == config.parameter_count()
    trained = [shape for key, shape in expected_shapes(config).items() if not key.endswith("e_score_correction_bias")]
    assert sum(torch.Size(shape).numel() for shape in trained) == config.parameter_count()


def test_deepseek_v3_itself_can_be_laid_out_without_memory():
    shapes = expected_shapes(preset("deepseek-v3"))
    assert shapes["model.layers.60.mlp.experts.255.gate_proj.weight"] == (2048, 7168)
    assert shapes["model.layers.61.eh_proj.weight"] == (7168, 14336)
    assert "model.layers.61.shared_head.norm.weight" in shapes
    assert "model.layers.62.enorm.weight" not in shapes


def test_tensors_given_by_name_are_cut_for_this_rank():
    whole = whole_tensors(build(TINY, "fp32"))
    module = Decoder(TINY, policy("fp32"), _cut(1, 0))
    load_tensors(module, whole)
    expected = build(TINY, "fp32", _cut(1, 0))
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), expected.parameters(), strict=True))


def test_a_missing_or_misshapen_tensor_is_named():
    whole = whole_tensors(build(TINY, "fp32"))
    module = Decoder(TINY, policy("fp32"))
    with pytest.raises(ConfigError, match=r"model.norm.weight: missing among the tensors given"):
        load_tensors(module, {name: tensor for name, tensor in whole.items() if name != "model.norm.weight"})
    with pytest.raises(ConfigError, match=r"model.norm.weight: has shape \[3\], the model needs \[128\]"):
        load_tensors(module, whole | {"model.norm.weight": torch.ones(3)})


def test_no_rank_alone_has_the_tensors_of_a_cut_model():
    with pytest.raises(ConfigError, match="is cut in 2, collect it first"):
        whole_tensors(build(TINY, "fp32", _cut(0, 0)))


def test_views_into_a_parameter_are_views_into_anything_shaped_like_it():
    module = build(TINY, "fp32")
    for shard in named_shards(module):
        moments = torch.zeros_like(shard.tensor)
        shard.of(moments).fill_(1)
        assert moments.sum() == shard.local.numel()


def test_initialising_in_bf16_rounds_the_same_values():
    wide, narrow = whole_tensors(build(TINY, "fp32")), Decoder(TINY, policy("fp8"))
    initialise(narrow, TINY, 7)
    for name, tensor in whole_tensors(narrow).items():
        assert torch.equal(tensor, wide[name].to(tensor.dtype))
