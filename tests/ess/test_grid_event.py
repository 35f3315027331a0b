"""A grid event: its ramps, OpenADR 3's way of saying it, and a plan that keeps it."""

from __future__ import annotations

import numpy as np
import pytest

from slurm_power.errors import ConfigError
from slurm_power.ess.grid_event import GridEvent, event_limits, parse_events

EVENT = GridEvent(
    name="e", start_wall_s=3600.0, duration_s=7200.0, limit_watts=60.0, ramp_s=900.0, ramp_from_watts=100.0
)
OPENADR = {
    "id": "7",
    "eventName": "summer peak",
    "payloadDescriptors": [{"payloadType": "IMPORT_CAPACITY_LIMIT", "units": "KW"}],
    "intervalPeriod": {"start": "2026-07-01T16:00:00Z", "duration": "PT1H30M"},
    "intervals": [
        {"id": 0, "payloads": [{"type": "IMPORT_CAPACITY_LIMIT", "values": [75]}]},
        {"id": 1, "payloads": [{"type": "IMPORT_CAPACITY_LIMIT", "values": [90.5]}, {"type": "PRICE", "values": [1]}]},
    ],
}


def test_the_limit_falls_along_the_ramp_holds_and_rises_along_it() -> None:
    times = np.array([2000.0, 2700.0, 3150.0, 3600.0, 9000.0, 10_800.0, 11_250.0, 11_700.0])
    assert EVENT.limits(times).tolist() == pytest.approx([np.inf, np.inf, 80.0, 60.0, 60.0, 60.0, 80.0, np.inf])


def test_a_slot_keeps_the_lowest_limit_that_holds_while_it_lasts() -> None:
    other = GridEvent(name="o", start_wall_s=4000.0, duration_s=10.0, limit_watts=10.0)
    starts, lengths = np.array([0.0, 3600.0, 7200.0]), np.full(3, 1800.0)
    assert event_limits((EVENT,), starts, lengths).tolist() == pytest.approx([np.inf, 60.0, 60.0])
    assert event_limits((EVENT, other), np.array([4000.0]), np.array([10.0])).tolist() == [10.0]


def test_openadrs_intervals_follow_each_other_in_the_stated_unit() -> None:
    first, second = parse_events([OPENADR])
    assert (first.start_wall_s, first.duration_s, first.limit_watts) == (1_782_921_600.0, 5400.0, 75_000.0)
    assert (second.start_wall_s, second.limit_watts) == (first.start_wall_s + 5400.0, 90_500.0)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"intervalPeriod": {"start": "2026-07-01T16:00:00", "duration": "PT1H"}}, "zone"),
        ({"intervalPeriod": {"start": "2026-07-01T16:00:00Z", "duration": "an hour"}}, "not a duration"),
        ({"intervals": [{"id": 0}]}, "payloads"),
        ({"payloadDescriptors": [{"payloadType": "IMPORT_CAPACITY_LIMIT", "units": "HP"}]}, "HP"),
        ({"intervals": [{"payloads": [{"type": "IMPORT_CAPACITY_LIMIT", "values": [-1]}]}]}, "limit"),
        ({"intervalPeriod": None}, "summer peak"),
    ],
)
def test_a_bad_event_is_refused_by_its_name(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_events([OPENADR | changes])
