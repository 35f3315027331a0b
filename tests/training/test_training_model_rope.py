"""Rotary frequencies of published models against transformers' own, and what a rotation keeps."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS  # noqa: E402

from training.model.presets import preset  # noqa: E402
from training.model.rope import inverse_frequencies, rotate, rotation  # noqa: E402
from training.model.rope_config import Rope  # noqa: E402

pytestmark = pytest.mark.torch

V3, LLAMA = preset("deepseek-v3"), preset("llama-3-8b")
# meta-llama/Llama-3.1-8B, config.json
LLAMA_3_1 = Rope(
    kind="llama3",
    theta=500_000.0,
    factor=8.0,
    original_max_position_embeddings=8192,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
)
CASES = {
    "deepseek-v3": V3,
    "deepseek-v3-other-ramp": replace(V3, rope=replace(V3.rope, beta_fast=64.0, beta_slow=2.0, mscale=0.5)),
    "deepseek-v3-given-amplitude": replace(V3, rope=replace(V3.rope, attention_factor=1.25)),
    "deepseek-v3-no-mscale": replace(V3, rope=replace(V3.rope, mscale=None, mscale_all_dim=None)),
    "llama-3.1": replace(LLAMA, rope=LLAMA_3_1),
    "llama-linear": replace(LLAMA, rope=Rope(kind="linear", factor=2.5)),
}


@pytest.mark.parametrize("name", CASES)
def test_frequencies_and_amplitude_are_transformers(name):
    config = CASES[name]
    values = config.to_hf()
    theirs = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    expected, amplitude = ROPE_INIT_FUNCTIONS[config.rope.kind](theirs, torch.device("cpu"))
    width = theirs.head_dim
    torch.testing.assert_close(inverse_frequencies(config.rope, width), expected, rtol=1e-6, atol=0)
    cosine, _ = rotation(config.rope, width, 4, torch.device("cpu"))
    assert cosine[0].unique().item() == pytest.approx(amplitude)


@pytest.mark.parametrize("interleave", [True, False])
def test_a_product_of_rotated_vectors_depends_on_their_distance_alone(interleave):
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(32, generator=generator).expand(1, 40, 1, 32) for _ in range(2))
    query, key = (rotate(x, Rope(), interleave=interleave)[0, :, 0] for x in (query, key))
    products = query @ key.T
    for distance in (0, 3, 17):
        along = products.diagonal(distance)
        torch.testing.assert_close(along, along[:1].expand_as(along), atol=1e-4, rtol=0)
    assert (products[0] - products[0, 0]).abs().max() > 1.0


def test_the_first_position_is_not_rotated():
    x = torch.randn(1, 2, 1, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(rotate(x, Rope(), interleave=False)[:, 0], x[:, 0])
