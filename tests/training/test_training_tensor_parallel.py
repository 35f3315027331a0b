"""Two tensor ranks against one: the same logits, losses and gradients; shards through a block are refused."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("deepspeed")  # ranks are forked from a process that has imported it

from tests.training.rank_functions_model import (  # noqa: E402
    build,
    column_and_row_on_ranks,
    model_on_ranks,
    pass_once,
    random_tokens,
)
from tests.training.ranks import run_ranks  # noqa: E402
from training.errors import ConfigError  # noqa: E402
from training.matmul import linear  # noqa: E402
from training.model.decoder import Decoder  # noqa: E402
from training.model.presets import preset  # noqa: E402
from training.parallel.context import SINGLE, Axis, ParallelContext  # noqa: E402
from training.parallel.shards import cut_width  # noqa: E402
from training.parallel.vocabulary import cross_entropy, mean_cross_entropy  # noqa: E402
from training.precision import policy  # noqa: E402

pytestmark = pytest.mark.torch

CONFIGS = {
    "v3": preset("tiny-v3"),
    "v3-groups": preset("small-v3"),
    "v3-no-query-compression": replace(preset("tiny-v3"), q_lora_rank=None),
    "llama": preset("tiny-llama"),
    "llama-tied": replace(preset("tiny-llama"), tie_word_embeddings=True),
}
ON_ALL_RANKS = ("norm.weight", "gate.weight", "q_a_proj.weight", "kv_a_proj_with_mqa.weight", "eh_proj.weight")


@lru_cache
def _both(name: str, policy_name: str):
    """The outcome of one rank, and those of two."""
    config = CONFIGS[name]
    tokens = random_tokens(config)
    return pass_once(build(config, policy_name), tokens), run_ranks(
        model_on_ranks, 2, config, policy_name, {"tensor": 2}, [tokens]
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_two_ranks_equal_one_in_fp32(name):
    one, ranks = _both(name, "fp32")
    logits = torch.cat([rank.logits for rank in ranks], dim=-1)
    torch.testing.assert_close(logits, one.logits, atol=1e-5, rtol=1e-5)
    for rank in ranks:
        assert rank.loss == pytest.approx(one.loss, abs=1e-5)
        assert rank.gradients.keys() == one.gradients.keys()
        for key, gradient in rank.gradients.items():
            whole = one.gradients[key]
            scale = whole.abs().max().clamp(min=1e-12)
            torch.testing.assert_close(gradient / scale, whole[rank.pieces[key]] / scale, atol=1e-4, rtol=0)


@pytest.mark.parametrize("policy_name", ["fp32", "bf16", "fp8"])
@pytest.mark.parametrize("name", ["v3", "v3-no-query-compression", "llama"])
def test_what_both_ranks_hold_gets_the_same_gradient_on_both(name, policy_name):
    _, (first, second) = _both(name, policy_name)
    shared = [key for key in first.gradients if first.pieces[key] == ()]
    assert {key.split(".", 3)[-1] for key in shared} >= {"input_layernorm.weight", "post_attention_layernorm.weight"}
    assert all(key.endswith(ON_ALL_RANKS) for key in shared)
    assert all(torch.equal(first.gradients[key], second.gradients[key]) for key in shared)


@pytest.mark.parametrize("name", ["v3", "llama"])
@pytest.mark.parametrize(("policy_name", "bound"), [("fp8", 2e-3), ("bf16", 2e-3)])
def test_two_ranks_stay_close_to_one_in_low_precision(name, policy_name, bound):
    one, ranks = _both(name, policy_name)
    for rank in ranks:
        assert rank.loss == pytest.approx(one.loss, abs=bound)
        mine = torch.cat([gradient.flatten() for gradient in rank.gradients.values()])
        whole = torch.cat([one.gradients[key][rank.pieces[key]].flatten() for key in rank.gradients])
        assert (mine - whole).norm() / whole.norm() < 0.05
    assert ranks[0].loss == ranks[1].loss


@pytest.mark.parametrize("policy_name", ["fp8", "bf16"])
def test_a_column_cut_changes_no_bit_and_a_row_cut_only_the_order_of_an_fp32_sum(policy_name):
    generator = torch.Generator().manual_seed(0)
    x, columns, rows = (torch.randn(shape, generator=generator) for shape in ((128, 256), (512, 256), (256, 512)))
    chosen = policy(policy_name, backend="emulate")
    x = x.bfloat16()
    columns, rows = (weight.bfloat16().requires_grad_() for weight in (columns, rows))
    inner = linear(x, columns, op="ffn.linear", policy=chosen)
    outer = linear(inner, rows, op="ffn.linear", policy=chosen)
    outer.backward(torch.ones_like(outer))
    ranks = run_ranks(column_and_row_on_ranks, 2, policy_name, x, columns.detach(), rows.detach())

    assert torch.equal(torch.cat([rank[0] for rank in ranks], dim=-1), inner)
    assert torch.equal(torch.cat([rank[3] for rank in ranks]), columns.grad)
    assert torch.equal(torch.cat([rank[4] for rank in ranks], dim=1), rows.grad)
    for rank in ranks:
        # Rounded once to BF16 after the sum: almost every value is the same, none is two steps off.
        assert (rank[1] != outer).float().mean() < 0.01
        torch.testing.assert_close(rank[1], outer, rtol=2**-7, atol=1e-3)


def test_every_collective_is_counted_by_its_payload():
    _, (rank, _) = _both("llama", "bf16")
    config, tokens = CONFIGS["llama"], 2 * 128
    layers, hidden = config.num_hidden_layers, tokens * config.hidden_size * 4
    assert rank.traffic == {
        "tensor.embedding": {"calls": 1, "bytes": hidden // 2},
        "tensor.reduce": {"calls": 2 * layers, "bytes": 2 * layers * hidden},
        "tensor.copy_backward": {"calls": 2 * layers + 1, "bytes": (2 * layers + 1) * hidden},
        "tensor.loss": {"calls": 2, "bytes": 3 * tokens * 4},
    }


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            preset("tiny-v3"),
            "parallel.tensor = 4: must cut num_attention_heads * v_head_dim = 256 into multiples of 128",
        ),
        (replace(preset("tiny-llama"), vocab_size=500), "must cut vocab_size = 500 into multiples of 128"),
        (
            replace(preset("tiny-llama"), intermediate_size=640, num_key_value_heads=8),
            "must cut intermediate_size = 640 into multiples of 128",
        ),
    ],
)
def test_a_model_that_cannot_be_cut_is_refused_before_it_is_built(config, message):
    with pytest.raises(ConfigError) as error:
        Decoder(config, policy("fp32"), ParallelContext(tensor=Axis("tensor", 0, 4)))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_shard_of_less_than_a_block_is_refused():
    with pytest.raises(ConfigError, match="width = 384: cut in 2, must give multiples of 128"):
        cut_width(384, Axis("tensor", 0, 2), "width")


def test_the_loss_of_an_uncut_vocabulary_is_torchs():
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(3, 7, 50, generator=generator) * 5).requires_grad_()
    labels = torch.randint(0, 50, (3, 7), generator=generator)
    labels[0, :3] = -100
    mine = mean_cross_entropy(logits, labels, SINGLE)
    (gradient,) = torch.autograd.grad(mine, logits)
    theirs = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    torch.testing.assert_close(mine, theirs)
    torch.testing.assert_close(gradient, torch.autograd.grad(theirs, logits)[0])


def test_the_loss_of_huge_logits_is_finite():
    loss = cross_entropy(torch.tensor([[1e4, -1e4, 0.0]]), torch.tensor([1]), SINGLE)
    assert loss.tolist() == [2e4]
