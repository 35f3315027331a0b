"""The planner's list of layers is the model's."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("torch")

from training.model.layers import layer_specs
from training.model.presets import PRESETS, preset
from training.planning.model_layers import model_layers

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("name", PRESETS)
def test_names_and_order_are_those_of_the_models_layers(name) -> None:
    config = replace(preset(name), tie_word_embeddings=name == "tiny-llama")
    assert [layer.name for layer in model_layers(config)] == [spec.name for spec in layer_specs(config)]
