from __future__ import annotations

import pytest

from slurm_power.monitoring.meter_sum import sum_of
from slurm_power.monitoring.readings import GridReading


def test_the_sum_is_as_old_as_its_oldest_part() -> None:
    total = sum_of([GridReading(100.0, 0.0, 7.0), GridReading(50.0, 0.0, 3.0), GridReading(25.0, 0.0, 5.0)])
    assert total == GridReading(175.0, 0.0, 3.0)


def test_what_one_part_feeds_in_another_may_draw() -> None:
    assert sum_of([GridReading(100.0, 0.0, 0.0), GridReading(0.0, 30.0, 0.0)]) == GridReading(70.0, 0.0, 0.0)
    assert sum_of([GridReading(10.0, 0.0, 0.0), GridReading(0.0, 30.0, 0.0)]) == GridReading(0.0, 20.0, 0.0)


def test_a_sum_of_no_meters_is_refused_not_zero() -> None:
    with pytest.raises(ValueError, match="not zero"):
        sum_of([])
