"""A model cut over ranks gives the logits of the whole one; each rank reads and holds its share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from job_wrappers.serving.errors import ConfigError  # noqa: E402
from job_wrappers.serving.models.build import weight_bytes  # noqa: E402
from job_wrappers.serving.models.place import ModelPlace  # noqa: E402
from tests.serving.one_rank import ManyRanks, OneRank  # noqa: E402
from tests.serving.tiny_models import FAMILIES, oracle_logits, tiny_folder  # noqa: E402

pytestmark = pytest.mark.torch

TOKENS = [int(t) for t in torch.randint(2, 500, (40,), generator=torch.Generator().manual_seed(4))]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("tensor", "pipeline"), [(2, 1), (1, 2), (2, 3)], ids=["tp2", "pp2", "tp2-pp3"])
def test_a_cut_model_has_the_logits_of_transformers(family: str, tensor: int, pipeline: int) -> None:
    folder = tiny_folder(family)
    model = ManyRanks(folder, tensor=tensor, pipeline=pipeline)
    wanted = oracle_logits(folder, TOKENS)
    torch.testing.assert_close(model.logits(TOKENS, [23, 15, 1, 1]), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("family", "changes", "tensor", "pipeline"),
    [
        pytest.param("llama", {"vocab_size": 509}, 2, 1, id="odd-vocabulary"),
        pytest.param("llama", {"vocab_size": 509, "tie_word_embeddings": True}, 2, 2, id="tied"),
        pytest.param("llama", {}, 4, 1, id="more-ranks-than-key-heads"),
        pytest.param("llama", {"attention_bias": True, "mlp_bias": True}, 2, 1, id="biases-are-added-once"),
        pytest.param("deepseek_v3", {"q_lora_rank": None}, 2, 1, id="no-query-latent"),
    ],
)
def test_what_does_not_cut_evenly_agrees_too(
    family: str, changes: dict[str, object], tensor: int, pipeline: int
) -> None:
    folder = tiny_folder(family, 2, json.dumps(changes))
    tokens = [token % 509 for token in TOKENS]
    model = ManyRanks(folder, tensor=tensor, pipeline=pipeline)
    torch.testing.assert_close(model.logits(tokens, [40]), oracle_logits(folder, tokens), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["llama", "deepseek_v3"])
def test_a_rank_reads_and_holds_only_its_share(family: str) -> None:
    folder = tiny_folder(family)
    whole = OneRank(folder)
    ranks = [rank for stage in ManyRanks(folder, tensor=2, pipeline=3).ranks for rank in stage]
    assert all(rank.weight_bytes < 0.3 * whole.weight_bytes for rank in ranks)
    assert sum(rank.read_bytes for rank in ranks) < 1.2 * whole.read_bytes
    for index, rank in enumerate(ranks):
        place = ModelPlace(tp_rank=index % 2, tp_size=2, pp_rank=index // 2, pp_size=3)
        assert rank.weight_bytes == weight_bytes(rank.config, place, torch.float32)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (ModelPlace(tp_size=3), "tensor_parallel = 3: must be a multiple of num_key_value_heads = 2"),
        (ModelPlace(tp_size=8), "tensor_parallel = 8: must divide num_attention_heads = 4"),
        (ModelPlace(pp_size=4), "pipeline_parallel = 4: the model has only 3 layers"),
    ],
)
def test_what_cannot_be_cut_is_said(place: ModelPlace, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        OneRank(Path(tiny_folder("llama")), place=place)
