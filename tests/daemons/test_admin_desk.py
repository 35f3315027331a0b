"""What admins ask for: it holds at once, survives a restart, and is gone when its time is over."""

from __future__ import annotations

import pytest

from slurm_power.daemons.admin_desk import AdminDesk
from slurm_power.daemons.controller_view import Event
from slurm_power.daemons.overrides import Override, Overrides
from slurm_power.errors import ConfigError, Unavailable
from slurm_power.testing.fake_clock import FakeClock
from slurm_power.testing.fake_journal import FakeJournal


class Bench:
    def __init__(self) -> None:
        self.clock, self.journal = FakeClock(), FakeJournal()
        self.events: list[Event] = []
        self.start()

    def start(self, *, may_manage: bool = True) -> None:
        """A controller that remembers nothing but its journal."""
        self.desk = AdminDesk(journal=self.journal, clock=self.clock, grid_limit_watts=20_000.0, may_manage=may_manage)
        self.desk.on_event = self.events.append


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_hold_ends_by_itself(bench: Bench) -> None:
    bench.desk.hold({"for_s": 600, "why": "test"}, who="ann")
    bench.clock.advance(599)
    assert bench.desk.current().hold is not None
    bench.clock.advance(2)
    assert bench.desk.current().hold is None


def test_a_hold_survives_a_restart_but_not_its_end(bench: Bench) -> None:
    bench.desk.hold({"for_s": 600, "why": "test"}, who="ann")
    bench.start()
    hold = bench.desk.current().hold
    assert hold is not None
    assert (hold.who, hold.why) == ("ann", "test")
    bench.clock.advance(601)
    bench.start()
    assert bench.desk.current() == Overrides()


def test_observe_and_target_survive_until_they_are_taken_back(bench: Bench) -> None:
    bench.desk.observe({"on": True, "why": "new firmware"}, who="ann")
    bench.desk.target({"watts": 9000, "why": "asked by the utility"}, who="bo")
    bench.clock.advance(30 * 86_400)
    bench.start()
    assert bench.desk.current().observe is not None
    assert bench.desk.current().target == Override("bo", "asked by the utility", bench.clock.wall_s() - 30 * 86_400,
                                                   None, 9000.0)  # fmt: skip
    bench.desk.observe({"on": False, "why": "done"}, who="ann")
    bench.desk.target({"watts": None, "why": "done"}, who="ann")
    bench.start()
    assert bench.desk.current() == Overrides()


def test_every_wish_is_told_with_who_why_and_how_long(bench: Bench) -> None:
    bench.desk.hold({"for_s": 1800, "why": "maintenance"}, who="ann")
    bench.desk.hold({"on": False, "why": "done"}, who="bo")
    bench.desk.target({"watts": 9000, "for_s": 3600, "why": "heat"}, who="ann")
    assert [(event.verb, event.reason) for event in bench.events] == [
        ("hold", "ann: maintenance (for 30 min)"),
        ("resume", "bo: done"),
        ("target", "ann: heat (9000 W, for 60 min)"),
    ]


def test_what_cannot_be_written_down_does_not_hold(bench: Bench) -> None:
    bench.journal.disk_full = True
    with pytest.raises(Unavailable):
        bench.desk.hold({"for_s": 60, "why": "x"}, who="ann")
    assert bench.desk.current() == Overrides()
    assert bench.events == []


def test_a_wish_cannot_undo_what_the_config_says(bench: Bench) -> None:
    bench.start(may_manage=False)
    with pytest.raises(ConfigError, match="mode = observe"):
        bench.desk.observe({"on": False, "why": "go"}, who="ann")


def test_a_damaged_journal_stops_the_start_rather_than_manage_a_site_that_should_be_observed(bench: Bench) -> None:
    bench.journal.write([{"name": "observe", "who": "ann"}])
    with pytest.raises(ConfigError, match="delete the file"):
        bench.start()


def test_a_target_reaches_the_planner_as_a_grid_event(bench: Bench) -> None:
    now_s = bench.clock.wall_s()
    bench.desk.target({"watts": 9000, "for_s": 3600, "why": "heat"}, who="ann")
    (event,) = bench.desk.current().grid_events
    assert (event.start_wall_s, event.duration_s, event.limit_watts) == (now_s, 3600.0, 9000.0)
    assert Overrides().grid_events == ()
