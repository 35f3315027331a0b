"""FP8 against BF16 on the same text from the same start, FP32 beside them: the quick form of the loss-gap bench."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("deepspeed")

from bench.training_loss_gap import Gap, gap  # noqa: E402
from tests.training.parity import Case, curves  # noqa: E402

pytestmark = pytest.mark.torch

EARLY_FRACTION = 0.01
"""Rounding moves a loss little as long as the curves have not parted; over many steps any rounding parts them."""


def test_fp8_and_fp32_follow_bf16_over_20_steps() -> None:
    chosen = {policy: Case(policy, "adamw") for policy in ("bf16", "fp8", "fp32")}
    seen = curves("1x1x1", list(chosen.values()), 20)
    bf16 = [loss for loss, _ in seen[chosen["bf16"]]]
    assert bf16[-1] < bf16[0] - 0.1, "nothing was learnt, so nothing was compared"
    for policy in ("fp8", "fp32"):
        losses = [loss for loss, _ in seen[chosen[policy]]]
        assert losses != bf16, f"{policy} rounds as BF16 does"
        assert max(abs(a - b) / b for a, b in zip(losses, bf16, strict=True)) < EARLY_FRACTION


def test_gaps_are_paired_by_seed() -> None:
    found = gap({0: 2.02, 1: 3.0}, {0: 2.0, 1: 3.0})
    assert found.by_seed == pytest.approx((0.01, 0.0))
    assert found.mean == pytest.approx(0.005)
    assert found.standard_error == pytest.approx(0.005)
    assert found.upper_bound == pytest.approx(0.005 + 6.314 * 0.005)


def test_one_seed_says_nothing_of_the_scatter() -> None:
    assert math.isnan(Gap(by_seed=(0.01,)).upper_bound)
