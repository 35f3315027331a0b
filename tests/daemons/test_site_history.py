"""What the forecaster is shown of the past: slot means, refilled from the store, no older than it is kept."""

from __future__ import annotations

import pytest

from slurm_power.daemons.site_history import SiteHistory
from slurm_power.ports.telemetry_store import Point
from slurm_power.testing.memory_store import MemoryStore

SLOT_S = 900.0
START_S = 900_000_000.0


def history(*, keep_s: float = 86_400.0) -> SiteHistory:
    return SiteHistory(keep_s=keep_s, slot_s=SLOT_S, max_gap_s=60.0)


def test_each_series_has_its_own_means() -> None:
    past = history()
    for second in range(0, 1801, 10):
        past.add(START_S + second, inflexible_watts=1000.0 + second, it_wanted_watts=500.0)
    assert [sample.watts for sample in past.inflexible()] == pytest.approx([1450.0, 2350.0])
    assert [sample.watts for sample in past.it_wanted()] == pytest.approx([500.0, 500.0])


def test_what_is_unknown_in_one_series_is_known_in_the_other() -> None:
    past = history()
    for second in range(0, 901, 10):
        past.add(START_S + second, inflexible_watts=None, it_wanted_watts=500.0)
    assert past.inflexible() == []
    assert len(past.it_wanted()) == 1


def test_slots_older_than_the_history_are_forgotten() -> None:
    past = history(keep_s=2 * SLOT_S)
    for second in range(0, 6 * 900, 10):
        past.add(START_S + second, inflexible_watts=1.0, it_wanted_watts=1.0)
    assert [sample.start_wall_s - START_S for sample in past.inflexible()] == [3 * 900, 4 * 900, 5 * 900]


def test_a_restarted_controller_reads_its_history_back_from_the_store() -> None:
    before, store = history(), MemoryStore()
    for second in range(0, 1801, 10):
        watts = {"inflexible_watts": 1000.0 + second, "it_wanted_watts": 500.0}
        store.write([Point("site", START_S + second, watts)])
        before.add(START_S + second, **watts)
    again = history()
    assert again.load(store, wall_s=START_S + 1800) == 181
    assert again.inflexible() == before.inflexible()


def test_slots_that_are_over_are_told_once_and_a_restart_reads_them_instead_of_every_reading() -> None:
    before, store = history(), MemoryStore()
    for second in range(0, 3 * 900 + 61, 20):
        before.add(START_S + second, inflexible_watts=1000.0 + second, it_wanted_watts=None)
        before.add_queue(START_S + second, {"running_gpus": 8.0})
        store.write(before.closed_slots(START_S + second))
    told = store.read("slot", since_wall_s=0.0)
    assert [point.wall_s - START_S for point in told] == [0.0, 900.0, 1800.0]
    assert set(told[0].fields) == {"inflexible_watts", "running_gpus"}
    again = history()
    assert again.load(store, wall_s=START_S + 2761) == 3
    assert again.inflexible() == before.inflexible()[:3]
    assert again.closed_slots(START_S + 3 * 900) == []


def test_a_history_of_readings_alone_is_recorded_as_slots_when_it_is_first_read() -> None:
    store, again = MemoryStore(), history()
    for second in range(0, 1801, 10):
        store.write([Point("site", START_S + second, {"inflexible_watts": 700.0})])
    again.load(store, wall_s=START_S + 1810)
    assert [point.wall_s - START_S for point in again.closed_slots(START_S + 1810)] == [0.0, 900.0]


def test_the_queue_of_a_slot_that_nobody_saw_is_as_it_was_before() -> None:
    past = history()
    assert past.queue([START_S]) is None
    for second in range(0, 901, 20):
        past.add_queue(START_S + second, {"running_gpus": 8.0, "pending_gpus": 3.0})
    rows = past.queue([START_S, START_S + 900.0])
    assert rows is not None
    assert rows[0] == rows[1] == [8.0, 3.0, 0.0, 0.0, 0.0]
