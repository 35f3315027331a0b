"""Do losses depend on how a model is cut? Every plan on the same text, with clipping that clips, AdamW and SGD, BF16
and FP8, and FP32 as the control. Ranks are processes on this machine, over gloo."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from tests.training.parity import PLANS, POLICIES, STEPS, Case, Curve, cases, curves, largest_difference, unsplit

Table = dict[str, dict[str, float]]
"""By policy and optimizer."""


def measure(steps: int = STEPS, policies: Sequence[str] = POLICIES) -> dict[str, dict[str, dict[str, Table]]]:
    """`parity_max_abs_loss_difference` over all steps, by what is compared ("to_one_rank", "to_unsplit") and plan."""
    chosen = cases(policies)
    seen = {plan: curves(plan, chosen, steps) for plan in dict.fromkeys((*PLANS, *map(unsplit, PLANS)))}
    return {
        "parity_max_abs_loss_difference": {
            "to_one_rank": {plan: _table(seen[plan], seen["1x1x1"]) for plan in seen if plan != "1x1x1"},
            "to_unsplit": {plan: _table(seen[plan], seen[unsplit(plan)]) for plan in PLANS if plan != unsplit(plan)},
        }
    }


def _table(curves_of: Mapping[Case, Curve], reference: Mapping[Case, Curve]) -> Table:
    table: Table = {}
    for case, curve in curves_of.items():
        table.setdefault(case.policy, {})[case.optimizer] = largest_difference(curve, reference[case])
    return table


if __name__ == "__main__":
    print(json.dumps(measure(), indent=1))
