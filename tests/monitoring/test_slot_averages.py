from __future__ import annotations

import pytest

from slurm_power.monitoring.slot_averages import slot_averages


def test_slots_are_aligned_and_in_order() -> None:
    readings = [(float(s), 100.0) for s in range(600, 2401, 10)]
    slots = slot_averages(readings, slot_s=600.0, max_gap_s=30.0)
    assert [slot.start_wall_s for slot in slots] == [600.0, 1200.0, 1800.0, 2400.0]
    assert [slot.watts for slot in slots[:3]] == pytest.approx([100.0] * 3)


def test_a_gap_is_a_slot_without_a_value() -> None:
    before = [(float(s), 100.0) for s in range(0, 601, 10)]
    after = [(float(s), 300.0) for s in range(1800, 2401, 10)]
    slots = slot_averages(before + after, slot_s=600.0, max_gap_s=30.0)
    assert [slot.watts for slot in slots[:4]] == [pytest.approx(100.0), None, None, pytest.approx(300.0)]
    assert slots[1].known_fraction == 0.0


def test_a_slot_of_which_little_is_known_has_no_value() -> None:
    slots = slot_averages([(0.0, 100.0), (10.0, 100.0), (100.0, 100.0)], slot_s=100.0, max_gap_s=30.0)
    assert slots[0].watts is None
    assert slots[0].known_fraction == pytest.approx(0.1)


def test_an_unanswered_question_is_not_zero_watts() -> None:
    slots = slot_averages([(0.0, 100.0), (10.0, None), (20.0, 100.0)], slot_s=20.0, max_gap_s=30.0)
    assert slots[0].watts == pytest.approx(100.0)


def test_a_line_is_split_exactly_between_slots() -> None:
    slots = slot_averages([(50.0, 0.0), (150.0, 100.0)], slot_s=100.0, max_gap_s=200.0)
    assert [slot.watts for slot in slots] == pytest.approx([25.0, 75.0])


def test_no_readings_are_no_slots() -> None:
    assert slot_averages([], slot_s=100.0, max_gap_s=30.0) == []
