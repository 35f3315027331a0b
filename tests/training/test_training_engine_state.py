"""Saving and going on: each piece once, the same bits afterwards, on this plan or another."""

from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("deepspeed")

from tests.training.rank_functions_engine import (  # noqa: E402
    Scenario,
    saved_state,
    train,
    train_on,
    unreadable_state,
)
from tests.training.ranks import run_ranks  # noqa: E402
from training.model.hf_names import expected_shapes  # noqa: E402

pytestmark = pytest.mark.torch

ALL_AXES = Scenario(pipeline=2, tensor=2, data=2, expert=2, policy="fp8")


def _on_ranks(function, scenario, *arguments):
    return run_ranks(function, scenario.plan.world_size, scenario, *arguments)


def _saved(scenario, count=2):
    return [state for state, _ in _on_ranks(saved_state, scenario, count)]


def _whole(by_rank):
    """Whole tensors by "kind/name" from every rank's pieces."""
    wholes = {}
    for state in by_rank:
        for key, (part, piece) in state.items():
            wholes.setdefault(key, torch.full(part.shape, float("nan"), dtype=piece.dtype))[part.piece] = piece
    return wholes


def _same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(Scenario(), id="one-rank"),
        pytest.param(Scenario(pipeline=2, schedule="dualpipev"), id="dualpipev"),
        pytest.param(Scenario(optimizer="sgd", data=2), id="sgd"),
        pytest.param(ALL_AXES, id="all-axes"),
        pytest.param(Scenario(data=4, expert=2, micro_sequences=1), id="experts-held-twice"),
        pytest.param(Scenario(data=2, expert=2, zero_stage=2), id="zero-2"),
        pytest.param(Scenario(data=2, zero_stage=3), id="zero-3"),
        pytest.param(Scenario(data=2, policy="fp32"), id="fp32"),
    ],
)
def test_a_run_goes_on_with_the_same_bits(scenario):
    through = _on_ranks(train, scenario, 4)[0]
    wholes = _whole(_saved(scenario))
    resumed = _on_ranks(train_on, scenario, pickle.dumps(wholes), 2, 2)
    assert _same(_whole([loaded for _, loaded in resumed]), wholes)
    assert resumed[0][0] == through[2:]


def test_every_piece_is_given_out_once_and_every_tensor_is_whole():
    by_rank = _saved(ALL_AXES)
    wholes = _whole(by_rank)
    shapes = expected_shapes(ALL_AXES.config)
    biases = {name for name in shapes if name.endswith("e_score_correction_bias")}
    kinds = {name: ("buffer",) if name in biases else ("master", "exp_avg", "exp_avg_sq") for name in shapes}
    assert wholes.keys() == {f"{kind}/{name}" for name in shapes for kind in kinds[name]}
    assert all(not whole.isnan().any() for whole in wholes.values())
    given = Counter(key for state in by_rank for key in state)
    cut = {key: part.cut_count if part.cut_dim is not None else 1 for s in by_rank for key, (part, _) in s.items()}
    assert given == Counter(cut)


def test_ranks_give_out_about_equally_much():
    sizes = [sum(piece.numel() for _, piece in state.values()) for state in _saved(Scenario(data=4), 1)]
    assert max(sizes) < 1.2 * min(sizes)


def test_the_master_copy_is_fp32_and_moments_are_as_the_table_says():
    (state,) = _saved(Scenario(policy="fp8"), 1)
    dtypes = {key.partition("/")[0]: piece.dtype for key, (_, piece) in state.items()}
    assert dtypes == {
        "master": torch.float32,
        "exp_avg": torch.bfloat16,
        "exp_avg_sq": torch.bfloat16,
        "buffer": torch.float32,
    }


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(Scenario(pipeline=2), Scenario(), id="a-pipeline-to-one-rank"),
        pytest.param(Scenario(), Scenario(pipeline=2, schedule="dualpipev"), id="one-rank-to-dualpipev"),
        pytest.param(
            replace(ALL_AXES, pipeline=1), replace(ALL_AXES, schedule="1f1b"), id="a-pipeline-through-all-axes"
        ),
    ],
)
def test_another_cut_of_the_pipeline_goes_on_with_the_same_bits(one, other):
    through = _on_ranks(train, one, 4)[0]
    resumed = _on_ranks(train_on, other, pickle.dumps(_whole(_saved(one))), 2, 2)
    assert resumed[0][0] == through[2:]


@pytest.mark.parametrize("other", [Scenario(tensor=2), Scenario(data=2, expert=2), Scenario(data=2, zero_stage=3)])
def test_another_plan_goes_on_within_rounding(other):
    through = _on_ranks(train, Scenario(), 4)[0]
    resumed = _on_ranks(train_on, other, pickle.dumps(_whole(_saved(Scenario()))), 2, 2)
    assert max(abs(a - b) for (a, _), (b, _) in zip(resumed[0][0], through[2:], strict=True)) < 1e-3


def test_a_state_can_be_saved_before_the_first_step():
    wholes = _whole(_saved(Scenario(data=2), 0))
    assert not wholes["exp_avg/model.norm.weight"].any()
    assert torch.equal(wholes["master/model.norm.weight"], torch.ones(128))


def test_a_state_that_one_rank_cannot_read_is_refused_by_all():
    errors = _on_ranks(unreadable_state, Scenario(data=2, pipeline=2), 2)
    assert errors[2].startswith("StorageError: ")
    others = "Unavailable: rank 2 could not load the state"
    assert [errors[0], errors[1], errors[3]] == [others] * 3
