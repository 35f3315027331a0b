from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slurm_power.relocation.jobs import Job, JobState, LicenseReservation, PowerClass
from slurm_power.relocation.plan import RESERVATION_PREFIX, RelocationPlan

NOW_S, SLOT_S = 1_000_800.0, 900.0
IDLE_WATTS = 4 * (500.0 + 4 * 70.0)


@pytest.fixture
def peak(cluster):
    """The envelope drops to 8 kW for the second hour."""
    cluster.config = replace(cluster.config, reservation_levels=132, reservation_hysteresis_watts=0)  # 100 W each
    cluster.envelopes = [13_200.0] * 4 + [8000.0] * 4 + [13_200.0] * 8
    return cluster


def reserved_watts(cluster, *, start_wall_s: float, end_wall_s: float) -> int:
    """What a job sees that runs from start to end: Slurm sums all reservations that the run overlaps."""
    return sum(
        r.licenses["watts"]
        for r in cluster.reservations
        if r.start_wall_s < end_wall_s and r.end_wall_s > start_wall_s and r.name.startswith(RESERVATION_PREFIX)
    )


def verbs(plan: RelocationPlan) -> set[str]:
    return {action.verb for action in plan.reservations}


def test_a_short_envelope_leaves_what_it_allows_and_only_while_it_is_short(peak) -> None:
    peak.apply(peak.plan())
    # 13200 - (8000 - 3120 of idle nodes) = 8320, rounded up to whole levels
    assert reserved_watts(peak, start_wall_s=NOW_S + 4 * SLOT_S, end_wall_s=NOW_S + 8 * SLOT_S) == 8400
    assert reserved_watts(peak, start_wall_s=NOW_S, end_wall_s=NOW_S + 4 * SLOT_S) == 0
    assert reserved_watts(peak, start_wall_s=NOW_S + 8 * SLOT_S, end_wall_s=NOW_S + 99 * SLOT_S) == 0


def test_every_reservation_says_why(peak) -> None:
    reasons = {action.reason for action in peak.plan().reservations}
    assert reasons == {"in 60 min for 60 min: the envelope falls to 8.00 kW; 0.10 kW more set aside"}


def test_a_job_sees_the_highest_need_of_its_run_not_the_sum_of_all_slots(peak) -> None:
    peak.envelopes = [12_000.0, 10_000.0, 8000.0, 9000.0] + [13_200.0] * 12
    peak.apply(peak.plan())
    need = [13_200 - (watts - IDLE_WATTS) for watts in peak.envelopes[:4]]
    for last in range(4):
        seen = reserved_watts(peak, start_wall_s=NOW_S + 1, end_wall_s=NOW_S + (last + 1) * SLOT_S)
        assert max(need[: last + 1]) <= seen <= max(need[: last + 1]) + 100


def test_a_firm_job_that_runs_through_the_peak_takes_its_part_of_the_envelope(peak) -> None:
    peak.add(1, power_class=PowerClass.FIRM, running_on=[0], limit_s=10_000.0)
    peak.apply(peak.plan())
    # 13200 - (8000 - 3300 of the firm job - 2340 of three idle nodes) = 10840
    assert reserved_watts(peak, start_wall_s=NOW_S + 4 * SLOT_S, end_wall_s=NOW_S + 8 * SLOT_S) == 10_900


def test_a_firm_job_that_ends_before_the_peak_takes_nothing_of_it(peak) -> None:
    peak.add(1, power_class=PowerClass.FIRM, running_on=[0], limit_s=1200.0)
    peak.apply(peak.plan())
    assert reserved_watts(peak, start_wall_s=NOW_S + 4 * SLOT_S, end_wall_s=NOW_S + 8 * SLOT_S) == 7600


def test_planning_again_after_applying_changes_nothing(peak) -> None:
    peak.apply(peak.plan())
    assert peak.plan().reservations == ()


def test_the_reservations_stay_the_same_while_the_peak_runs(peak) -> None:
    peak.apply(peak.plan())
    for minutes in range(0, 121, 5):
        peak.wall_s = NOW_S + 60.0 * minutes
        assert verbs(peak.plan()) == set()
        peak.reservations = [r for r in peak.reservations if r.end_wall_s > peak.wall_s]
    assert peak.reservations == []


def test_a_peak_that_is_cancelled_is_undone(peak) -> None:
    peak.apply(peak.plan())
    peak.envelopes = [13_200.0] * 16
    plan = peak.plan()
    assert verbs(plan) == {"delete"}
    peak.apply(plan)
    assert peak.reservations == []


def test_a_deeper_peak_only_adds_levels(peak) -> None:
    peak.apply(peak.plan())
    peak.envelopes = [13_200.0] * 4 + [6000.0] * 4 + [13_200.0] * 8
    plan = peak.plan()
    assert verbs(plan) == {"create"}
    assert len(plan.reservations) == 20


def test_a_longer_peak_moves_the_ends_of_what_has_begun(peak) -> None:
    peak.apply(peak.plan())
    peak.wall_s = NOW_S + 5 * SLOT_S
    peak.envelopes = [13_200.0] * 4 + [8000.0] * 6 + [13_200.0] * 6
    plan = peak.plan()
    assert verbs(plan) == {"update"}
    assert {action.reservation.start_wall_s for action in plan.reservations} == {NOW_S + 4 * SLOT_S}
    assert {action.reservation.end_wall_s for action in plan.reservations} == {NOW_S + 10 * SLOT_S}


def test_a_level_is_added_only_when_it_is_needed_by_more_than_the_hysteresis(peak) -> None:
    peak.config = replace(peak.config, reservation_hysteresis_watts=150)
    peak.apply(peak.plan())
    levels = len(peak.reservations)
    peak.envelopes = [13_200.0] * 4 + [7990.0] * 4 + [13_200.0] * 8
    assert peak.plan().reservations == ()
    peak.envelopes = [13_200.0] * 4 + [7600.0] * 4 + [13_200.0] * 8
    peak.apply(peak.plan())
    assert len(peak.reservations) > levels


def test_the_name_of_a_reservation_that_is_over_but_still_listed_is_freed_first(peak) -> None:
    peak.reservations = [LicenseReservation("slurm_power_level_00", NOW_S - 100.0, NOW_S - 1.0, {"watts": 100})]
    first, second, *_ = peak.plan().reservations
    assert (first.verb, first.reservation.end_wall_s) == ("delete", NOW_S - 1.0)
    assert (second.verb, second.reservation.name) == ("create", "slurm_power_level_00")


def test_all_levels_together_never_hold_more_than_the_pool(peak) -> None:
    peak.config = replace(peak.config, reservation_levels=7)
    peak.envelopes = [0.0] * 16
    peak.apply(peak.plan())
    assert reserved_watts(peak, start_wall_s=NOW_S, end_wall_s=NOW_S + 16 * SLOT_S) == 13_200


def test_reservations_of_others_are_left_alone(peak) -> None:
    foreign = LicenseReservation("maintenance", NOW_S + 4 * SLOT_S, NOW_S + 8 * SLOT_S, {"watts": 100})
    peak.reservations = [foreign]
    assert verbs(peak.plan()) == {"create"}
    peak.envelopes = [13_200.0] * 16
    assert peak.plan().reservations == ()


def test_without_a_plan_for_now_nothing_is_changed(peak) -> None:
    peak.apply(peak.plan())
    peak.wall_s = NOW_S + 1e6
    plan = peak.plan()
    assert plan.reservations == ()
    assert plan.jobs == ()
    assert plan.shortfalls == ("no plan for now: caps and queue stay",)


def finished(job_id: int, *, ran_s: float, limit_s: float) -> Job:
    return Job(
        job_id=job_id,
        user_name="u",
        uid=1,
        name="",
        partition="main",
        state=JobState.OTHER,
        state_reason="None",
        gpus=1,
        node_names=(),
        submit_wall_s=0.0,
        begin_wall_s=None,
        start_wall_s=1000.0,
        time_limit_s=limit_s,
        licenses={},
        batch=True,
        requeueable=True,
        admin_comment="",
        raw_state="COMPLETED",
        end_wall_s=1000.0 + ran_s,
    )


def test_jobs_that_end_long_before_their_limits_are_not_held_back_for_a_far_peak(peak) -> None:
    """Finished jobs ran a tenth of their limit, so a 2 h job is expected to be over before the peak in 1 h."""
    peak.add(1, limit_s=7200.0)
    assert verbs(peak.plan()) == {"create"}
    peak.jobs += [finished(100 + i, ran_s=720.0, limit_s=7200.0) for i in range(20)]
    assert peak.plan().reservations == ()
    peak.wall_s = NOW_S + 3 * SLOT_S
    assert verbs(peak.plan()) == {"create"}


@settings(deadline=None, max_examples=80)
@given(
    envelopes=st.lists(st.floats(0.0, 15_000.0), min_size=16, max_size=16),
    later=st.lists(st.floats(0.0, 15_000.0), min_size=16, max_size=16),
    moved_s=st.floats(0.0, 7000.0),
)
def test_any_change_of_plan_is_applied_in_one_step_and_every_run_sees_its_highest_need(
    new_cluster: Callable[..., object], envelopes: list[float], later: list[float], moved_s: float
) -> None:
    cluster = new_cluster(envelopes=envelopes)
    cluster.config = replace(cluster.config, reservation_hysteresis_watts=0)
    cluster.apply(cluster.plan())
    cluster.envelopes, cluster.wall_s = later, NOW_S + moved_s
    cluster.apply(cluster.plan())
    highest = 0.0
    for slot in cluster.slots():
        end_wall_s = slot.start_wall_s + slot.duration_s
        if end_wall_s <= cluster.wall_s + 3.0 or slot.envelope_watts >= 13_200:
            continue
        highest = max(highest, min(13_200.0, 13_200 - (slot.envelope_watts - IDLE_WATTS)))
        assert reserved_watts(cluster, start_wall_s=cluster.wall_s + 2.0, end_wall_s=end_wall_s) >= highest - 1e-6
    assert cluster.plan().reservations == ()
