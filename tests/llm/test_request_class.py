"""Classes of requests: the bounds, the names, what a pool may serve."""

from __future__ import annotations

import pytest

from slurm_power.llm.request_class import REQUEST_CLASSES, class_named, request_class


@pytest.mark.parametrize(
    ("prompt_tokens", "output_tokens", "name"),
    [(1, 1, "SS"), (255, 99, "SS"), (256, 99, "MS"), (255, 100, "SM"), (1023, 349, "MM"), (1024, 350, "LL")],
)
def test_a_request_at_a_bound_belongs_to_the_larger_class(prompt_tokens: int, output_tokens: int, name: str) -> None:
    assert request_class(prompt_tokens=prompt_tokens, output_tokens=output_tokens) == class_named(name)


def test_a_pool_serves_classes_that_are_no_larger_in_either_way() -> None:
    served = {one.name for one in REQUEST_CLASSES if class_named("ML").holds(one)}
    assert served == {"SS", "SM", "SL", "MS", "MM", "ML"}
