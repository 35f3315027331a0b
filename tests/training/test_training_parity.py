"""The same model, text and clipping on every plan: a pipeline changes no bit, a tensor axis next to nothing."""

from __future__ import annotations

from functools import cache

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("deepspeed")

from tests.training.parity import PLANS, Case, cases, curves, largest_difference, scenario, unsplit  # noqa: E402
from tests.training.rank_functions_engine import Scenario  # noqa: E402

# One worker runs them all: they compare with the same reference curves.
pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("training-parity"), pytest.mark.timeout(900)]

LOW_PRECISION = tuple(cases(("bf16", "fp8")))
CROSSED = (Case("bf16", "sgd"), Case("fp8", "adamw"))
"""For plans of four and eight ranks, which share two cores here; the parity bench runs all."""

CONTROL = tuple(cases(("fp32",)))
LLAMA = (Case("fp8", "sgd", "tiny-llama"), Case("bf16", "adamw", "tiny-llama"))
TIED = (Case("bf16", "sgd", "tiny-v3+tied"), Case("fp8", "sgd", "tiny-v3+deep"))


@cache
def _curves(plan, chosen, steps):
    return curves(plan, chosen, steps)


def _low_precision(plan):
    """By case, 20 steps."""
    ranks = scenario(plan, LOW_PRECISION[0]).plan.world_size
    return _curves(plan, LOW_PRECISION if ranks < 4 else CROSSED, 20)


def _assert_close(seen, reference, bound):
    for case, curve in seen.items():
        assert largest_difference(curve, reference[case]) < bound, case


@pytest.mark.parametrize("plan", [plan for plan in PLANS if plan != unsplit(plan)])
def test_a_pipeline_changes_no_bit_of_losses_and_norms_over_20_steps(plan):
    whole = _low_precision(unsplit(plan))
    for case, curve in _low_precision(plan).items():
        assert curve == whole[case], case


@pytest.mark.parametrize("plan", ["1x2x1", "1x1x2", "2x2x1", "2x1x2", "2x2x2"])
def test_tensor_data_and_expert_ranks_stay_within_two_thousandths_over_20_steps(plan):
    _assert_close(_low_precision(plan), _low_precision("1x1x1"), 2e-3)


@pytest.mark.parametrize("plan", [plan for plan in PLANS if plan != "1x1x1"])
def test_without_rounding_every_plan_gives_the_same_losses(plan):
    _assert_close(_curves(plan, CONTROL, 4), _curves("1x1x1", CONTROL, 4), 3e-6)
    if plan != unsplit(plan):
        assert _curves(plan, CONTROL, 4) == _curves(unsplit(plan), CONTROL, 4)


@pytest.mark.parametrize("plan", ["2x1x1", "2x2x2"])
def test_a_dense_llama_agrees_as_well(plan):
    assert _curves(plan, LLAMA, 4) == _curves(unsplit(plan), LLAMA, 4)
    _assert_close(_curves(plan, LLAMA, 4), _curves("1x1x1", LLAMA, 4), 2e-3)


@pytest.mark.parametrize("plan", ["2x1x1", "2x1x1 dualpipev"])
def test_an_embedding_with_three_uses_agrees_to_the_bit(plan):
    """Tied to the head, or read by two depths of multi-token prediction: its gradients are summed use by use."""
    assert _curves(plan, TIED, 4) == _curves("1x1x1", TIED, 4)


def test_clipping_clips_in_every_step_and_training_learns():
    for case, curve in _low_precision("1x1x1").items():
        assert min(norm for _, norm in curve) > Scenario().clipping, case
        assert curve[-1][0] < curve[0][0] - 0.03, case
