"""Who starts when: small schedules worked out by hand."""

from __future__ import annotations

import pytest

from slurm_power.relocation.jobs import PowerClass
from slurm_power.replay.backfill import StartedBy, WaitedFor
from slurm_power.replay.job_table import Phase
from slurm_power.replay.policy import Orders
from slurm_power.replay.twin import replay
from tests.replay.made_up import Scripted, config, ended_s, jobs, started_s


def test_jobs_start_in_the_order_of_their_submission():
    run = replay(jobs({"gpus": 4}, {"gpus": 4, "submit_s": 10}, {"gpus": 4, "submit_s": 5}), config())
    assert started_s(run) == {1: 0, 3: 100, 2: 200}
    assert [one.waited_for for one in run.starts] == [WaitedFor.NOTHING, WaitedFor.GPUS, WaitedFor.GPUS]


def test_a_higher_class_priority_goes_first():
    trace = jobs({"gpus": 4}, {"gpus": 4, "submit_s": 1}, {"gpus": 4, "submit_s": 2, "power_class": PowerClass.FIRM})
    run = replay(trace, config(class_priority={PowerClass.FIRM: 1}))
    assert started_s(run) == {1: 0, 3: 100, 2: 200}


def test_a_short_job_is_backfilled_and_the_head_is_not_delayed():
    trace = jobs(
        {"gpus": 3, "runtime_s": 100},
        {"gpus": 4, "submit_s": 1},
        {"gpus": 1, "submit_s": 2, "runtime_s": 98},  # ends at 100, just in time
    )
    run = replay(trace, config())
    assert started_s(run) == {1: 0, 3: 2, 2: 100}
    assert run.starts[1].started_by is StartedBy.BACKFILL


def test_a_job_whose_limit_reaches_beyond_the_heads_start_waits():
    trace = jobs(
        {"gpus": 3, "runtime_s": 100},
        {"gpus": 4, "submit_s": 1},
        {"gpus": 1, "submit_s": 2, "runtime_s": 10, "time_limit_s": 99},
    )
    run = replay(trace, config())
    assert started_s(run) == {1: 0, 2: 100, 3: 200}
    assert run.starts[2].waited_for is WaitedFor.GPUS  # at its last look; before, it was out of turn


def test_a_long_job_is_backfilled_where_the_head_needs_nothing():
    """The head needs two whole nodes of three; one GPU of the third is free for anybody."""
    trace = jobs(
        {"gpus": 4, "runtime_s": 100},
        {"gpus": 4, "runtime_s": 300},
        {"gpus": 3, "runtime_s": 300},
        {"gpus": 8, "submit_s": 1},
        {"gpus": 1, "submit_s": 2, "runtime_s": 5000},
    )
    run = replay(trace, config(nodes=3))
    assert started_s(run) == {1: 0, 2: 0, 3: 0, 5: 2, 4: 300}


def test_a_backfilled_job_keeps_off_the_nodes_that_the_head_will_get():
    """Best fit would be node 0, but its job ends first and the head needs it whole."""
    trace = jobs(
        {"gpus": 3, "runtime_s": 100},
        {"gpus": 2, "runtime_s": 1000},
        {"gpus": 4, "submit_s": 1, "runtime_s": 10},
        {"gpus": 1, "submit_s": 2, "runtime_s": 5000},
    )
    run = replay(trace, config(nodes=2))
    assert started_s(run) == {1: 0, 2: 0, 4: 2, 3: 100}


def test_two_long_jobs_do_not_take_both_nodes_that_would_do_for_the_head():
    """Both nodes are free at 100 and the head needs one: one long job may start beside it, on either."""
    trace = jobs(
        {"gpus": 3, "runtime_s": 100},
        {"gpus": 3, "runtime_s": 100},
        {"gpus": 4, "submit_s": 1},
        {"submit_s": 2, "runtime_s": 5000},
        {"submit_s": 2, "runtime_s": 5000},
    )
    assert started_s(replay(trace, config(nodes=2))) == {1: 0, 2: 0, 4: 2, 3: 100, 5: 100}


def test_an_earlier_end_lets_the_head_start_before_its_reservation():
    trace = jobs({"gpus": 4, "runtime_s": 30, "time_limit_s": 1000}, {"gpus": 4, "submit_s": 1})
    assert started_s(replay(trace, config())) == {1: 0, 2: 30}


def test_without_limits_nobody_can_say_when_the_head_starts_so_anybody_fills_in():
    trace = jobs({"gpus": 3, "time_limit_s": None}, {"gpus": 4, "submit_s": 1}, {"submit_s": 2, "time_limit_s": None})
    assert started_s(replay(trace, config())) == {1: 0, 3: 2, 2: 102}


def test_backfill_looks_at_a_limited_number_of_jobs():
    trace = jobs({"gpus": 3}, {"gpus": 4, "submit_s": 1}, {"gpus": 4, "submit_s": 2}, {"submit_s": 3, "runtime_s": 5})
    assert started_s(replay(trace, config(backfill_depth=2)))[4] > 100
    assert started_s(replay(trace, config(backfill_depth=3)))[4] == 3


def test_backfill_wakes_up_at_its_interval():
    trace = jobs({"gpus": 3}, {"gpus": 4, "submit_s": 1}, {"submit_s": 2, "runtime_s": 5})
    assert started_s(replay(trace, config(backfill_interval_s=30.0))) == {1: 0, 3: 30, 2: 100}


def test_a_job_wider_than_a_node_takes_whole_nodes():
    trace = jobs({"gpus": 6, "runtime_s": 50}, {"gpus": 1, "submit_s": 1, "runtime_s": 50})
    run = replay(trace, config(nodes=2))
    assert started_s(run) == {1: 0, 2: 50}
    # Two nodes of 40 W, six busy GPUs, two of whole nodes that idle.
    assert run.jobs.joules[0] == pytest.approx(50 * (2 * 40 + 6 * 100 + 2 * 10))


def test_a_job_that_names_its_nodes_is_spread_over_them():
    trace = jobs({"gpus": 4, "nodes": 2}, {"gpus": 3, "submit_s": 1, "runtime_s": 10}, {"gpus": 2, "submit_s": 2})
    assert started_s(replay(trace, config(nodes=2))) == {1: 0, 3: 2, 2: 100}


def test_a_job_wider_than_the_cluster_is_refused():
    run = replay(jobs({"gpus": 9}, {"gpus": 1}), config(nodes=2))
    assert run.jobs.phase.tolist() == [Phase.REFUSED, Phase.FINISHED]
    assert run.summary().refused == 1


class TestWattsBudget:
    """A whole node at full power is licensed 4 x 100 + 40 W; a GPU 110 W."""

    def test_a_job_waits_until_its_watts_are_free(self):
        policy = Scripted(lambda view: Orders(budget_watts=[250.0] * 20))
        run = replay(jobs({}, {}, {"runtime_s": 50}), config(), policy)
        assert started_s(run) == {1: 0, 2: 0, 3: 100}
        assert run.starts[2].waited_for is WaitedFor.WATTS

    def test_a_job_whose_limit_reaches_into_a_low_slot_waits_for_its_end(self):
        budget = [440.0, 440.0, 100.0, 440.0, 440.0, 440.0]
        policy = Scripted(lambda view: Orders(budget_watts=budget[view.slot :] or None))
        trace = jobs({"runtime_s": 100, "time_limit_s": 250}, {"runtime_s": 200, "time_limit_s": 200})
        assert started_s(replay(trace, config(), policy)) == {1: 300, 2: 0}

    def test_firm_jobs_are_not_asked(self):
        policy = Scripted(lambda view: Orders(budget_watts=[0.0] * 3 if view.slot < 3 else None))
        run = replay(jobs({"power_class": PowerClass.FIRM}, {}), config(), policy)
        assert started_s(run) == {1: 0, 2: 300}

    def test_a_head_that_waits_for_watts_is_not_delayed_by_a_long_job(self):
        """220 W: two GPUs at a time. The head's two GPUs' watts are free at 100."""
        policy = Scripted(lambda view: Orders(budget_watts=[220.0] * 20))
        trace = jobs(
            {"runtime_s": 100},
            {"gpus": 2, "submit_s": 1, "runtime_s": 50},
            {"submit_s": 2, "runtime_s": 400},
            {"submit_s": 3, "runtime_s": 90},
        )
        assert started_s(replay(trace, config(), policy)) == {1: 0, 4: 3, 2: 100, 3: 150}

    def test_a_budget_that_no_longer_holds_stops_nobody(self):
        policy = Scripted({0: Orders(budget_watts=[0.0] * 50)})
        assert started_s(replay(jobs({}), config(), policy)) == {1: 100}

    def test_a_capped_job_leaves_watts_for_another(self):
        policy = Scripted(lambda view: Orders(budget_watts=[180.0] * 20, caps={1: 50.0} if view.slot else {}))
        trace = jobs({"runtime_s": 1000, "time_limit_s": 2000}, {"runtime_s": 10})
        assert started_s(replay(trace, config(), policy)) == {1: 0, 2: 100}


def test_every_end_comes_once():
    run = replay(jobs({}, {}, {"gpus": 4}), config())
    assert ended_s(run) == {1: 100, 2: 100, 3: 200}
