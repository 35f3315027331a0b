"""OpenMetrics text: a real parser reads it back, and no text can forge a line."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_power.monitoring.openmetrics import Family, counter, gauge, render


def read(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    parser = pytest.importorskip("prometheus_client.openmetrics.parser")
    families = parser.text_string_to_metric_families(text)
    return {family.name: [(sample.labels, sample.value) for sample in family.samples] for family in families}


def test_what_is_unknown_has_no_sample() -> None:
    family = gauge("draw_watts", "Draw", unit="watts")
    for value in (None, math.nan, math.inf, 5.0):
        family.add(value, node="n1")
    assert family.samples == [({"node": "n1"}, 5.0)]


def test_a_counter_ends_with_total() -> None:
    assert "slurm_power_ticks_total 7\n" in render([counter("ticks", "Ticks", 7)])


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), st.floats(allow_nan=False, allow_infinity=False))
def test_any_label_and_any_number_are_read_back(label: str, value: float) -> None:
    family = Family("x", "gauge", 'Help with \\ and "quotes"\nand a line')
    family.add(value, node=label)
    assert read(render([family])) == {"slurm_power_x": [({"node": label}, value)]}
