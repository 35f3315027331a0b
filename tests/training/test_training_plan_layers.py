"""The model as numbers agrees with the model's own sizes."""

from __future__ import annotations

import pytest

from training.model.presets import PRESETS, preset
from training.parallel.partition import layer_costs
from training.parallel.plan import ParallelPlan
from training.planning.model_layers import flops_per_token, model_layers
from training.planning.stages import held_parameters, layers_of_rank, plan_boundaries, stages


@pytest.mark.parametrize("name", PRESETS)
def test_the_layers_hold_all_parameters_of_the_model(name) -> None:
    config = preset(name)
    held = held_parameters(model_layers(config), config, ParallelPlan())
    assert held.total == config.parameter_count()
    assert (held.expert > 0) == config.has_experts


@pytest.mark.parametrize("name", PRESETS)
def test_layer_flops_are_those_that_stages_are_cut_by(name) -> None:
    """The partition also counts norms, a few parts in a thousand of a small model."""
    config = preset(name)
    ours = [
        sum(g.flops_per_token() for g in layer.gemms) + (layer.core.flops_per_token(512) if layer.core else 0.0)
        for layer in model_layers(config)
    ]
    assert ours == pytest.approx(layer_costs(config, 512), rel=5e-3)
    assert flops_per_token(config, 512) == pytest.approx(3 * sum(ours))


def test_training_flops_are_about_six_per_active_parameter() -> None:
    """Llama 3 8B at 2048 tokens: 6 N less the embedding's look-up, plus causal attention."""
    config = preset("llama-3-8b")
    by_hand = 6 * (8_030_261_248 - 128_256 * 4096) + 3 * 32 * 2048 * 32 * 256
    assert flops_per_token(config, 2048) == pytest.approx(by_hand, rel=1e-4)


@pytest.mark.parametrize("schedule", ["1f1b", "dualpipev"])
def test_all_ranks_together_hold_the_model_once_and_the_embedding_once_a_user(schedule) -> None:
    config = preset("tiny-v3")
    plan = ParallelPlan(pipeline=2, tensor=2, data=2, expert=2, micro_batches=4, schedule=schedule)
    cut = stages(config, plan_boundaries(config, plan, 128))
    held = [held_parameters(layers_of_rank(rank, cut, plan), config, plan) for rank in range(2)]
    whole = held_parameters(model_layers(config), config, ParallelPlan())
    assert sum(rank.expert for rank in held) * plan.tensor * plan.expert == whole.expert
    users = sum(1 for rank in range(2) if any(layer.is_embedding for layer in layers_of_rank(rank, cut, plan)))
    replicated = sum(layer.vectors + sum(g.weights for g in layer.gemms if not g.cut) for layer in model_layers(config))
    cut_once = whole.shared - replicated + (users - 1) * config.embedding_parameters
    assert sum(rank.shared for rank in held) == replicated + cut_once // plan.tensor


def test_latent_attention_reads_three_short_vectors_and_grouped_queries_the_hidden_state() -> None:
    v3, llama = model_layers(preset("tiny-v3"))[1], model_layers(preset("tiny-llama"))[1]
    assert v3.summed_backward == (128 + 128 + 64) + 128
    assert llama.summed_backward == 256 + 256
