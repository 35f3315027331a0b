"""Deferrals: only where the licences do not do it, never beyond the job's own bound, given back early."""

from __future__ import annotations

from dataclasses import replace

import pytest

from slurm_power.errors import ConfigError
from slurm_power.relocation.job_mark import parse_mark
from slurm_power.relocation.jobs import JobState, PowerClass
from slurm_power.relocation.planner import expected_it_draw, firm_it_watts

NOW_S, SLOT_S = 1_000_800.0, 900.0


@pytest.fixture
def beyond_horizon(cluster):
    """A peak in the third hour that the reservations' horizon does not reach yet."""
    cluster.envelopes = [13_200.0] * 8 + [4000.0] * 4 + [13_200.0] * 4
    cluster.config = replace(cluster.config, reservation_horizon_s=3600.0, max_deferred_fraction=1.0)
    return cluster


def verbs(plan) -> list[tuple[str, int]]:
    return [(action.verb, action.job_id) for action in plan.jobs]


def test_a_job_that_slurm_holds_back_by_its_licences_is_left_to_slurm(cluster) -> None:
    cluster.envelopes = [13_200.0] * 4 + [4000.0] * 4 + [13_200.0] * 8
    cluster.add(1, limit_s=7200.0)
    plan = cluster.plan()
    assert {action.verb for action in plan.reservations} == {"create"}
    assert plan.jobs == ()


def test_a_job_that_slurm_would_start_into_a_peak_is_deferred_behind_it(beyond_horizon) -> None:
    beyond_horizon.add(1, limit_s=10_000.0)
    (action,) = beyond_horizon.plan().jobs
    assert action.verb == "defer"
    assert action.begin_wall_s == NOW_S + 12 * SLOT_S
    assert parse_mark(action.admin_comment).deferred_until_wall_s == NOW_S + 12 * SLOT_S
    assert action.reason == "its run has room for 0.88 kW only, it asks 3.30 kW: starts in 3.0 h"


def test_a_job_that_ends_before_the_peak_starts_now(beyond_horizon) -> None:
    beyond_horizon.add(1, limit_s=3600.0)
    assert beyond_horizon.plan().jobs == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"power_class": PowerClass.FIRM},
        {"batch": False},
        {"delay_s": 600.0},
        {"waited_s": 4 * 3600.0},
        {"state_reason": "Dependency"},
        {"state_reason": "JobHeldUser"},
    ],
    ids=["firm", "interactive", "bound-too-short", "waited-long-enough", "dependency", "held-by-user"],
)
def test_who_may_not_or_need_not_be_deferred_is_not(beyond_horizon, changes) -> None:
    beyond_horizon.add(1, limit_s=10_000.0, **changes)
    assert beyond_horizon.plan().jobs == ()


def test_only_a_part_of_the_waiting_jobs_is_deferred_at_a_time(beyond_horizon) -> None:
    beyond_horizon.config = replace(beyond_horizon.config, max_deferred_fraction=0.5)
    for job_id in range(1, 5):
        beyond_horizon.add(job_id, gpus=2, limit_s=10_000.0)
    assert len(beyond_horizon.plan().jobs) == 2


def test_planning_again_leaves_a_deferred_job_alone(beyond_horizon) -> None:
    beyond_horizon.add(1, limit_s=10_000.0)
    beyond_horizon.apply(beyond_horizon.plan())
    assert beyond_horizon.plan().jobs == ()


def test_a_deferred_job_starts_early_once_the_envelope_opens(beyond_horizon) -> None:
    beyond_horizon.add(1, limit_s=10_000.0)
    before = beyond_horizon.jobs[0].admin_comment
    beyond_horizon.apply(beyond_horizon.plan())
    beyond_horizon.envelopes = [13_200.0] * 16
    (action,) = beyond_horizon.plan().jobs
    assert (action.verb, action.begin_wall_s) == ("release", NOW_S)
    assert action.admin_comment == before


def test_a_deferred_job_is_let_go_when_its_bound_is_reached(beyond_horizon) -> None:
    beyond_horizon.add(1, limit_s=10_000.0)
    beyond_horizon.apply(beyond_horizon.plan())
    beyond_horizon.jobs[0] = replace(beyond_horizon.jobs[0], submit_wall_s=NOW_S - 5 * 3600.0)
    (action,) = beyond_horizon.plan().jobs
    assert action.verb == "release"
    assert "as long as it may" in action.reason


def test_not_all_deferred_jobs_come_back_at_once_if_there_is_no_room_for_all(beyond_horizon) -> None:
    for job_id in range(1, 4):
        beyond_horizon.add(job_id, limit_s=10_000.0)
    beyond_horizon.apply(beyond_horizon.plan())
    beyond_horizon.envelopes = [13_200.0] * 8 + [8000.0] * 4 + [13_200.0] * 4
    assert verbs(beyond_horizon.plan()) == [("release", 1)]


def test_a_job_that_power_has_held_beyond_its_bound_gets_firm_watts(cluster) -> None:
    cluster.envelopes = [4000.0] * 16
    cluster.add(1, delay_s=1800.0, waited_s=1800.0, state_reason="Licenses", licenses={"watts": 3300, "matlab": 1})
    (action,) = cluster.plan().jobs
    assert action.verb == "release"
    assert action.licenses == {"matlab": 1, "firm_watts": 3300}
    cluster.apply(cluster.plan())
    assert cluster.plan().jobs == ()


def test_a_job_that_waits_for_gpus_is_not_given_firm_watts(cluster) -> None:
    cluster.envelopes = [4000.0] * 16
    cluster.add(1, delay_s=60.0, waited_s=1800.0, state_reason="Resources")
    assert cluster.plan().jobs == ()


def test_a_users_own_begin_time_is_respected(beyond_horizon) -> None:
    beyond_horizon.add(1, limit_s=10_000.0, begin_wall_s=NOW_S + 60.0)
    assert beyond_horizon.plan().jobs == ()


def test_cheaper_energy_defers_only_where_the_site_wants_it(cluster) -> None:
    cluster.prices = [0.4] * 8 + [0.1] * 8
    cluster.add(1, limit_s=1800.0)
    assert cluster.plan().jobs == ()
    cluster.config = replace(cluster.config, min_deferral_saving_fraction=0.3, max_deferred_fraction=1.0)
    (action,) = cluster.plan().jobs
    assert action.begin_wall_s == NOW_S + 8 * SLOT_S
    assert "cheaper" in action.reason


def test_the_expected_draw_is_as_if_nobody_were_held_back(beyond_horizon) -> None:
    beyond_horizon.add(1, running_on=[0], slowdown=0.5, limit_s=3600.0, ran_s=600.0)
    beyond_horizon.add(2, limit_s=10_000.0)
    beyond_horizon.apply(beyond_horizon.plan())
    cluster = beyond_horizon
    draw = expected_it_draw(jobs=cluster.jobs, nodes=cluster.nodes(), wall_s=NOW_S, config=cluster.config)
    assert draw.idle_watts == pytest.approx(4 * 780.0)
    assert [(r.watts, r.end_wall_s) for r in draw.running] == [(pytest.approx(4 * 630.0), NOW_S + 3000.0)]
    assert [(p.watts, p.duration_s, p.begin_wall_s) for p in draw.pending] == [
        (pytest.approx(4 * 630.0), 10_000.0, None)
    ]


def test_firm_watts_are_idle_nodes_firm_jobs_and_what_the_lowest_caps_leave(cluster) -> None:
    cluster.add(1, power_class=PowerClass.FIRM, running_on=[0], limit_s=1500.0, ran_s=600.0)
    cluster.add(2, running_on=[1], slowdown=0.24, limit_s=2400.0, ran_s=600.0)
    firm = firm_it_watts(
        jobs=cluster.jobs,
        nodes=cluster.nodes(),
        start_wall_s=NOW_S,
        slot_s=SLOT_S,
        slots=3,
        wall_s=NOW_S,
        config=cluster.config,
    )
    idle, capped = 2 * 780.0, 4 * 350.0 + 500.0
    assert firm == pytest.approx([idle + 3300 + capped, idle + capped, idle])


def test_finished_jobs_are_nobodys_business(cluster) -> None:
    cluster.add(1, state=JobState.OTHER)
    assert cluster.plan().jobs == ()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("license_total_watts", 0),
        ("min_gpu_cap_watts", 800.0),
        ("max_deferred_fraction", 1.5),
        ("licensed_draw_fraction", 0.0),
        ("default_max_slowdown_fraction", 0.95),
        ("curve_throughput_fractions", (0.0, 1.0)),
        ("reservation_levels", 0),
    ],
)
def test_bad_settings_are_refused_by_key(cluster, key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=key if "curve" not in key else "curve_power_fractions"):
        replace(cluster.config, **{key: value})
