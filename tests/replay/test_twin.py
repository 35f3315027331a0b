"""What orders do to running and waiting jobs, and what the books say afterwards."""

from __future__ import annotations

import math

import numpy as np
import pytest

from slurm_power.relocation.jobs import PowerClass
from slurm_power.replay.job_table import Phase
from slurm_power.replay.policy import Orders
from slurm_power.replay.twin import replay
from tests.replay.made_up import Scripted, config, ended_s, jobs, started_s

IDLE_WATTS = 40 + 4 * 10


def test_it_watts_are_the_exact_mean_of_each_slot():
    run = replay(jobs({"submit_s": 50.0}), config())
    assert run.slot_watts == pytest.approx([IDLE_WATTS + 0.5 * 90, IDLE_WATTS + 0.5 * 90])
    assert run.highest_it_watts == pytest.approx(IDLE_WATTS + 90)


def test_a_job_at_four_fifths_of_its_speed_takes_a_quarter_longer():
    trace = jobs({"runtime_s": 400.0, "time_limit_s": 1000.0})
    run = replay(trace, config(), Scripted(lambda view: Orders(caps={1: 50.0})))
    assert ended_s(run) == {1: pytest.approx(100 + 300 / 0.8)}  # it started after the first decision
    assert run.slot_watts[1] == pytest.approx(IDLE_WATTS - 10 + 50)
    assert run.jobs.capped_gpu_s[0] == pytest.approx(375)
    assert run.jobs.slowdown_fraction[0] == pytest.approx(1 - 400 / 475)


def test_a_cap_that_is_not_named_again_is_lifted():
    policy = Scripted({1: Orders(caps={1: 50.0})})
    run = replay(jobs({"runtime_s": 400.0, "time_limit_s": 1000.0}), config(), policy)
    assert ended_s(run) == {1: pytest.approx(420)}


def test_a_cap_below_the_boards_range_is_the_boards_lowest():
    policy = Scripted(lambda view: Orders(caps={1: 1.0}))
    run = replay(jobs({"runtime_s": 500.0, "time_limit_s": None}), config(), policy)
    assert run.slot_watts[1] == pytest.approx(IDLE_WATTS - 10 + 20)


def test_a_job_slowed_beyond_its_limit_is_ended_there():
    policy = Scripted(lambda view: Orders(caps={1: 50.0}))
    run = replay(jobs({"runtime_s": 400.0, "time_limit_s": 410.0}), config(), policy)
    assert ended_s(run) == {1: 410}
    assert run.jobs.phase[0] == Phase.TIMED_OUT
    assert run.summary().timed_out == 1


def test_a_requeued_job_loses_the_work_since_its_last_checkpoint():
    policy = Scripted({1: Orders(requeues=[1])})
    run = replay(jobs({"gpus": 2, "runtime_s": 200.0}), config(), policy)
    assert ended_s(run) == {1: 240}  # of 100 s, 60 are kept
    assert run.summary().gpu_hours_lost == pytest.approx(2 * 40 / 3600)
    assert len(run.starts) == 2


def test_a_requeued_job_stays_away_as_long_as_slurm_keeps_it():
    policy = Scripted({1: Orders(requeues=[1])})
    run = replay(jobs({"runtime_s": 200.0}), config(requeue_delay_s=121.0, checkpoint_interval_s=None), policy)
    assert started_s(run) == {1: 221}
    assert ended_s(run) == {1: 421}


def test_a_requeue_that_is_also_held_waits_for_the_later_of_both():
    policy = Scripted(
        lambda view: Orders(requeues=[1] if view.slot == 1 else [], holds={1: 450.0} if view.slot else {})
    )
    assert started_s(replay(jobs({"runtime_s": 200.0}), config(requeue_delay_s=30.0), policy)) == {1: 450}


def test_a_held_job_starts_by_itself_at_its_time():
    policy = Scripted(lambda view: Orders(holds={1: 250.0}))
    assert started_s(replay(jobs({"submit_s": 0.0}), config(), policy)) == {1: 250}


def test_a_hold_that_is_not_named_again_lets_the_job_go():
    assert started_s(replay(jobs({}), config(), Scripted({0: Orders(holds={1: math.inf})}))) == {1: 100}


def test_a_held_job_does_not_hold_up_those_behind_it():
    policy = Scripted(lambda view: Orders(holds={1: 500.0}))
    run = replay(jobs({"gpus": 4}, {"gpus": 4}), config(), policy)
    assert started_s(run) == {2: 0, 1: 500}


def test_a_suspended_job_keeps_its_gpus_and_its_limit_stands_still():
    policy = Scripted({1: Orders(suspended=frozenset({1})), 2: Orders(suspended=frozenset({1}))})
    run = replay(jobs({"gpus": 4, "runtime_s": 150.0}, {"gpus": 4, "submit_s": 1.0}), config(), policy)
    assert ended_s(run) == {1: 350, 2: 450}
    assert run.jobs.phase[0] == Phase.FINISHED
    assert run.slot_watts[1] == run.slot_watts[2] == pytest.approx(IDLE_WATTS)


def test_once_resumed_a_job_is_expected_to_end_again():
    policy = Scripted({1: Orders(suspended=frozenset({1}))})
    trace = jobs(
        {"gpus": 3, "runtime_s": 150.0}, {"gpus": 4, "submit_s": 210.0}, {"submit_s": 220.0, "runtime_s": 1000.0}
    )
    assert started_s(replay(trace, config(), policy)) == {1: 0, 2: 250, 3: 350}


def test_a_policy_sees_what_waits_runs_and_has_ended_but_not_how_long_jobs_run():
    policy = Scripted({1: Orders(caps={1: 50.0})})
    replay(jobs({"gpus": 4, "runtime_s": 150.0, "time_limit_s": 500.0}, {"submit_s": 30.0}), config(), policy)
    view = policy.views[1]
    assert view["now_s"] == 100
    assert view["running"].job_id.tolist() == [1]
    assert view["running"].remaining_limit_s.tolist() == [400]
    assert view["running"].draw_watts.tolist() == [440]
    assert view["pending"].job_id.tolist() == [2]
    assert not hasattr(view["pending"], "runtime_s")
    assert policy.views[2]["ended"].job_id.tolist() == [1]


def test_orders_to_firm_jobs_are_counted():
    policy = Scripted({1: Orders(caps={1: 50.0})})
    run = replay(jobs({"runtime_s": 400.0, "power_class": PowerClass.FIRM, "time_limit_s": 900.0}), config(), policy)
    assert run.summary().firm_jobs_touched == 1


def test_a_run_in_which_nobody_may_ever_start_is_given_up():
    policy = Scripted(lambda view: Orders(holds={1: math.inf}))
    run = replay(jobs({}), config(stall_s=1000.0), policy)
    assert run.summary().unfinished == 1
    assert run.slot_watts.size <= 12


def test_a_run_can_be_stopped_and_says_who_has_not_ended():
    run = replay(jobs({"runtime_s": 1000.0}), config(), until_s=300.0)
    assert run.summary().unfinished == 1
    assert run.jobs.done_s[0] == 300
    assert run.it_joules == pytest.approx(run.jobs.joules.sum() + run.idle_joules)


def test_the_summary_tells_waits_by_class_and_the_peak():
    trace = jobs({"gpus": 4}, {"gpus": 4, "submit_s": 40.0}, {"power_class": PowerClass.FIRM, "submit_s": 150.0})
    summary = replay(trace, config()).summary()
    assert summary.classes[PowerClass.FLEXIBLE].wait_p50_s == 30
    assert summary.classes[PowerClass.FIRM].wait_p95_s == 50
    assert summary.classes[PowerClass.PREEMPTIBLE].wait_p50_s is None
    assert summary.peak_it_watts == pytest.approx(440)
    assert summary.makespan_s == 300
    assert summary.utilisation_fraction == pytest.approx((400 + 400 + 100) / (4 * 300))
    assert np.isclose(summary.it_joules, 100 * (440 + 440 + IDLE_WATTS + 90))
