"""The model as a list of layers: what travels between them, and that a cut between any two changes no bit."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from tests.training.rank_functions_model import build, pass_once, random_tokens  # noqa: E402
from training.model.decoder import Decoder, loss  # noqa: E402
from training.model.layers import EMBEDDING, layer_specs  # noqa: E402
from training.model.mtp import ahead  # noqa: E402
from training.model.presets import preset  # noqa: E402
from training.precision import policy  # noqa: E402

pytestmark = pytest.mark.torch

TWO_AHEAD = replace(preset("tiny-v3"), num_nextn_predict_layers=2)


def test_layers_come_in_the_order_in_which_they_run():
    assert [spec.name for spec in layer_specs(TWO_AHEAD)] == [
        "embedding",
        "layer.0",
        "layer.1",
        "layer.2",
        "final_norm",
        "mtp.1.embedding",
        "mtp.1",
        "mtp.2.embedding",
        "mtp.2",
        "head",
    ]


def test_every_use_of_the_embedding_has_its_key():
    tied = [spec.name for spec in layer_specs(TWO_AHEAD) if spec.tied_key == EMBEDDING]
    assert tied == ["embedding", "mtp.1.embedding", "mtp.2.embedding"]
    assert all(spec.tied_key is None for spec in layer_specs(preset("tiny-llama")))
    shared = layer_specs(replace(preset("tiny-llama"), tie_word_embeddings=True))
    assert [spec.name for spec in shared if spec.tied_key == EMBEDDING] == ["embedding", "head"]


def test_a_model_with_tied_embeddings_has_no_weight_of_its_own_for_the_head():
    config = replace(preset("tiny-llama"), tie_word_embeddings=True)
    names = [parameter.hf_name for parameter in build(config, "fp32").parameters()]
    assert "lm_head.weight" not in names
    assert len(names) == len(set(map(str, names)))


@pytest.mark.parametrize("policy_name", ["fp8", "bf16", "fp32"])
def test_one_float_tensor_in_the_parameters_precision_and_the_tokens_travel(policy_name):
    module, tokens = build(TWO_AHEAD, policy_name), random_tokens(TWO_AHEAD)[:, :-1]
    state, streams = tokens, []
    for spec, layer in zip(module.specs[:-1], module.layers, strict=False):
        state = layer(state) if spec.forward is None else spec.forward(layer, state)
        hidden, travelling = state
        assert hidden.dtype == next(module.parameters()).dtype
        assert hidden.shape[1:] == (*tokens.shape, TWO_AHEAD.hidden_size)
        assert hidden.requires_grad
        assert torch.equal(travelling, tokens)
        streams.append(hidden.shape[0])
    assert streams == [1, 1, 1, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("policy_name", ["fp8", "bf16", "fp32"])
def test_cutting_between_any_two_layers_changes_no_bit_of_loss_and_gradients(policy_name):
    tokens = random_tokens(TWO_AHEAD)
    whole = build(TWO_AHEAD, policy_name)
    expected = pass_once(whole, tokens)
    for parameter in whole.parameters():
        # Uses of the embedding add up in a stage of their own otherwise than in one graph; in FP32 sinks they do not.
        parameter.fp32_gradient = torch.zeros(parameter.shape)
        parameter.grad = None
    loss(whole(tokens[:, :-1]), tokens[:, 1:], TWO_AHEAD).backward()

    cut = build(TWO_AHEAD, policy_name)
    for parameter in cut.parameters():
        parameter.fp32_gradient = torch.zeros(parameter.shape)
    value = _backward_in_pieces(cut, tokens)
    assert value == expected.loss
    for (name, mine), (_, reference) in zip(cut.named_parameters(), whole.named_parameters(), strict=True):
        if "layers.0" in name:  # three uses add up in another order
            torch.testing.assert_close(mine.fp32_gradient, reference.fp32_gradient)
        else:
            assert torch.equal(mine.fp32_gradient, reference.fp32_gradient), name


def _backward_in_pieces(module: Decoder, tokens: torch.Tensor) -> float:
    """As a pipeline with one layer a stage does it: nothing but the state's tensors and gradients crosses."""
    state, stages = tokens[:, :-1], []
    for spec, layer in zip(module.specs, module.layers, strict=True):
        if isinstance(state, tuple):
            state = (state[0].detach().requires_grad_(), state[1])
        entered = state
        state = layer(state) if spec.forward is None else spec.forward(layer, state)
        stages.append((entered, state))
    value = loss(state, tokens[:, 1:], TWO_AHEAD)
    value.backward()
    for (entered, _), (_, left) in zip(stages[:0:-1], stages[-2::-1], strict=True):
        left[0].backward(entered[0].grad)
    return value.item()


def test_tokens_ahead_are_those_further_right():
    tokens = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    assert ahead(tokens, 1, fill=0).tolist() == [[2, 3, 4, 0], [6, 7, 8, 0]]
    assert ahead(tokens, 3, fill=-100).tolist() == [[4, -100, -100, -100], [8, -100, -100, -100]]


@pytest.mark.parametrize("name", ["tiny-v3", "tiny-llama"])
def test_the_future_does_not_change_the_past(name):
    config = preset(name)
    module, tokens = build(config, "fp32"), random_tokens(config, length=40)[:, :-1]
    changed = tokens.clone()
    changed[:, 20:] = (changed[:, 20:] + 1) % config.vocab_size
    before, after = module(tokens).streams, module(changed).streams
    for depth in range(before.shape[0]):  # depth k sees k tokens further
        assert torch.equal(before[depth, :, : 20 - depth], after[depth, :, : 20 - depth])
        assert not torch.equal(before[depth, :, 20:], after[depth, :, 20:])


def test_training_goes_on_after_an_inference_of_the_same_length():
    config = preset("tiny-llama")
    module, tokens = build(config, "fp32"), random_tokens(config, length=38)[:, :-1]
    with torch.inference_mode():
        module(tokens)
    module(tokens).streams.sum().backward()


def test_a_value_nobody_set_shows_in_the_loss():
    config = preset("tiny-v3")
    module, tokens = Decoder(config, policy("fp32")), random_tokens(config, length=8)
    assert loss(module(tokens[:, :-1]), tokens[:, 1:], config).isnan()
