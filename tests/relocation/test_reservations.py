from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slurm_power.relocation.jobs import Job, JobState, LicenseReservation, PowerClass
from slurm_power.relocation.plan import RESERVATION_PREFIX

NOW_S, SLOT_S = 1_000_800.0, 900.0
IDLE_WATTS = 4 * (500.0 + 4 * 70.0)


@pytest.fixture
def peak(cluster):
    """The envelope drops to 8 kW for the second hour."""
    cluster.envelopes = [13_200.0] * 4 + [8000.0] * 4 + [13_200.0] * 8
    return cluster


def test_a_short_envelope_becomes_one_reservation_that_leaves_what_the_envelope_allows(peak) -> None:
    (action,) = peak.plan().reservations
    assert action.verb == "create"
    reservation = action.reservation
    assert reservation.name == f"slurm_power_{NOW_S + 4 * SLOT_S:.0f}"
    assert (reservation.start_wall_s, reservation.end_wall_s) == (NOW_S + 4 * SLOT_S, NOW_S + 8 * SLOT_S)
    # 13200 - (8000 - 3120 of idle nodes) = 8320, rounded up to the step
    assert reservation.licenses == {"watts": 8400}
    assert action.reason == "in 60 min for 60 min: the envelope is 8.00 kW; 8.40 kW of licences set aside"


def test_a_firm_job_that_runs_through_the_peak_takes_its_part_of_the_envelope(peak) -> None:
    peak.add(1, power_class=PowerClass.FIRM, running_on=[0], limit_s=10_000.0)
    (action,) = peak.plan().reservations
    # 13200 - (8000 - 3300 of the firm job - 2340 of three idle nodes) = 10840
    assert action.reservation.licenses == {"watts": 10_900}


def test_a_firm_job_that_ends_before_the_peak_takes_nothing_of_it(peak) -> None:
    peak.add(1, power_class=PowerClass.FIRM, running_on=[0], limit_s=1200.0)
    (action,) = peak.plan().reservations
    assert action.reservation.licenses == {"watts": 7600}


def test_planning_again_after_applying_changes_nothing(peak) -> None:
    peak.apply(peak.plan())
    assert peak.plan().reservations == ()


def test_the_reservation_stays_the_same_while_the_peak_runs(peak) -> None:
    peak.apply(peak.plan())
    for minutes in range(0, 121, 5):
        peak.wall_s = NOW_S + 60.0 * minutes
        plan = peak.plan()
        assert [action.verb for action in plan.reservations] == []
        peak.reservations = [r for r in peak.reservations if r.end_wall_s > peak.wall_s]
    assert peak.reservations == []


def test_a_peak_that_is_cancelled_is_undone(peak) -> None:
    peak.apply(peak.plan())
    peak.envelopes = [13_200.0] * 16
    (action,) = peak.plan().reservations
    assert action.verb == "delete"


def test_a_deeper_peak_updates_the_same_reservation(peak) -> None:
    peak.apply(peak.plan())
    peak.envelopes = [13_200.0] * 4 + [6000.0] * 4 + [13_200.0] * 8
    (action,) = peak.plan().reservations
    assert action.verb == "update"
    assert action.reservation.licenses == {"watts": 10_400}


def test_a_started_reservation_keeps_its_window_and_a_longer_peak_adds_the_next_block(peak) -> None:
    peak.apply(peak.plan())
    peak.wall_s = NOW_S + 5 * SLOT_S
    peak.envelopes = [13_200.0] * 4 + [6000.0] * 6 + [13_200.0] * 6
    update, create = peak.plan().reservations
    assert (update.verb, create.verb) == ("update", "create")
    assert update.reservation.start_wall_s == NOW_S + 4 * SLOT_S
    assert update.reservation.end_wall_s == create.reservation.start_wall_s == NOW_S + 8 * SLOT_S


def test_a_little_too_much_is_left_alone(peak) -> None:
    peak.apply(peak.plan())
    peak.envelopes = [13_200.0] * 4 + [8150.0] * 4 + [13_200.0] * 8
    assert peak.plan().reservations == ()


def test_a_block_counts_with_its_tightest_slot(cluster) -> None:
    cluster.envelopes = [8000.0, 9100.0, 10_200.0, 8000.0] + [13_200.0] * 12
    (action,) = cluster.plan().reservations
    assert action.reservation.licenses == {"watts": 8400}
    assert action.reservation.start_wall_s == NOW_S + 1.0  # Slurm refuses a start in the past


def test_a_block_of_another_length_from_before_is_replaced(peak) -> None:
    peak.reservations = [
        LicenseReservation(f"slurm_power_{NOW_S + 4 * SLOT_S:.0f}", NOW_S + 4 * SLOT_S, NOW_S + 5 * SLOT_S)
    ]
    verbs = [action.verb for action in peak.plan().reservations]
    assert "delete" in verbs


def test_reservations_of_others_are_left_alone(peak) -> None:
    foreign = LicenseReservation("maintenance", NOW_S + 4 * SLOT_S, NOW_S + 8 * SLOT_S, {"watts": 100})
    peak.reservations = [foreign]
    plan = peak.plan()
    assert [action.verb for action in plan.reservations] == ["create"]
    peak.envelopes = [13_200.0] * 16
    assert all(action.reservation.name != "maintenance" for action in peak.plan().reservations)


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
    assert [action.verb for action in peak.plan().reservations] == ["create"]
    peak.jobs += [finished(100 + i, ran_s=720.0, limit_s=7200.0) for i in range(20)]
    peak.config = replace(peak.config, reservation_block_s=900.0)
    assert peak.plan().reservations == ()
    peak.wall_s = NOW_S + 3 * SLOT_S
    assert {action.verb for action in peak.plan().reservations} == {"create"}


@settings(deadline=None, max_examples=80)
@given(
    envelopes=st.lists(st.floats(0.0, 15_000.0), min_size=16, max_size=16),
    later=st.lists(st.floats(0.0, 15_000.0), min_size=16, max_size=16),
    moved_s=st.floats(0.0, 7000.0),
)
def test_any_change_of_plan_is_applied_in_one_step_and_leaves_no_slot_uncovered(
    new_cluster: Callable[..., object], envelopes: list[float], later: list[float], moved_s: float
) -> None:
    cluster = new_cluster(envelopes=envelopes)
    cluster.apply(cluster.plan())
    cluster.envelopes, cluster.wall_s = later, NOW_S + moved_s
    cluster.apply(cluster.plan())
    assert all(r.name.startswith(RESERVATION_PREFIX) for r in cluster.reservations)
    for slot in cluster.slots():
        if slot.start_wall_s + slot.duration_s <= cluster.wall_s + 3.0 or slot.envelope_watts >= 13_200:
            continue
        at_s = max(slot.start_wall_s, cluster.wall_s + 2.0)
        held = sum(r.licenses["watts"] for r in cluster.reservations if r.start_wall_s <= at_s < r.end_wall_s)
        assert len([r for r in cluster.reservations if r.start_wall_s <= at_s < r.end_wall_s]) <= 1
        assert held >= min(13_200, 13_200 - (slot.envelope_watts - IDLE_WATTS)) - 1e-6
    assert cluster.plan().reservations == ()
