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
