"""Caps and requeues: as little as needed, within what each job allows, calmly back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slurm_power.relocation.job_mark import parse_mark
from slurm_power.relocation.jobs import JobState, PowerClass
from slurm_power.relocation.planner import undo_relocation
from slurm_power.relocation.throughput import lowest_cap_watts, throughput_fraction

FULL_WATTS = 4 * (500 + 4 * 700)


@pytest.fixture
def busy(cluster):
    """Four jobs fill the cluster: 13.2 kW."""
    for index in range(4):
        cluster.add(index + 1, running_on=[index], slowdown=0.3)
    return cluster


def caps(plan) -> dict[int, float]:
    return dict(plan.job_caps)


def test_the_default_curve_and_bound_give_the_lowest_cap(cluster) -> None:
    # 24 % slower is half the power on the default curve
    assert lowest_cap_watts(600.0, max_slowdown_fraction=0.24, config=cluster.config) == pytest.approx(300.0)
    assert lowest_cap_watts(300.0, max_slowdown_fraction=0.9, config=cluster.config) == 200.0
    assert throughput_fraction(0.5, cluster.config) == pytest.approx(0.76)


def test_nobody_is_capped_while_the_envelope_holds(busy) -> None:
    plan = busy.plan()
    assert plan.job_caps == ()
    assert plan.jobs == ()


def test_the_excess_is_shared_in_proportion_and_no_more_than_needed(busy) -> None:
    busy.envelopes = [FULL_WATTS - 1600.0] * 16
    plan = busy.plan()
    assert caps(plan) == {1: 600.0, 2: 600.0, 3: 600.0, 4: 600.0}
    assert plan.shortfalls == ()
    assert plan.jobs[0].reason.startswith("IT would draw 13.20 kW, the envelope is 11.60 kW: 600 W per GPU")


def test_the_licence_shrinks_with_the_cap_and_the_mark_remembers(busy) -> None:
    busy.envelopes = [FULL_WATTS - 1600.0] * 16
    action = busy.plan().jobs[0]
    assert action.verb == "cap"
    assert action.licenses == {"watts": 3300 - 400}
    mark = parse_mark(action.admin_comment)
    assert (mark.capped_watts, mark.licenses_before, mark.drawn_watts) == (600.0, 3300, 700.0)


def test_other_licences_of_the_job_are_kept(cluster) -> None:
    cluster.add(1, running_on=[0], slowdown=0.5, licenses={"matlab": 2, "watts": 3300})
    cluster.envelopes = [5000.0] * 16
    assert cluster.plan().jobs[0].licenses["matlab"] == 2


def test_firm_and_interactive_jobs_are_never_capped_or_requeued(cluster) -> None:
    cluster.add(1, power_class=PowerClass.FIRM, running_on=[0])
    cluster.add(2, power_class=PowerClass.PREEMPTIBLE, running_on=[1], batch=False)
    cluster.envelopes = [100.0] * 16
    plan = cluster.plan()
    assert plan.jobs == ()
    assert plan.job_caps == ()
    assert any("above the envelope" in text for text in plan.shortfalls)


def test_caps_do_not_ratchet_down_when_the_draw_follows_the_cap(busy) -> None:
    busy.envelopes = [FULL_WATTS - 1600.0] * 16
    busy.apply(busy.plan())
    busy.draws = dict.fromkeys(busy.draws, 600.0)
    for _ in range(5):
        plan = busy.plan()
        assert plan.jobs == ()
        assert set(caps(plan).values()) == {600.0}


def test_a_little_more_envelope_changes_nothing_and_much_more_lets_caps_rise_step_by_step(busy) -> None:
    busy.envelopes = [FULL_WATTS - 1600.0] * 16
    busy.apply(busy.plan())
    busy.draws = dict.fromkeys(busy.draws, 600.0)
    busy.envelopes = [FULL_WATTS - 1550.0] * 16
    assert busy.plan().jobs == ()
    busy.envelopes = [FULL_WATTS + 1000.0] * 16
    busy.config = replace(busy.config, cap_release_fraction_per_tick=0.1)
    seen = []
    while caps(plan := busy.plan()):
        seen.append(caps(plan)[1])
        busy.apply(plan)
        busy.draws = dict(caps(plan))
    assert seen == [640.0, 680.0]
    assert {action.verb for action in plan.jobs} == {"uncap"}


def test_an_uncapped_job_gets_its_licence_and_its_mark_back_exactly(busy) -> None:
    before = {job.job_id: (dict(job.licenses), job.admin_comment) for job in busy.jobs}
    busy.envelopes = [FULL_WATTS - 1600.0] * 16
    busy.apply(busy.plan())
    busy.envelopes = [FULL_WATTS + 1000.0] * 16
    for _ in range(10):
        busy.apply(busy.plan())
    assert {job.job_id: (dict(job.licenses), job.admin_comment) for job in busy.jobs} == before


def test_a_capped_job_that_pauses_keeps_its_cap_unless_its_return_would_fit(busy) -> None:
    busy.envelopes = [FULL_WATTS - 1600.0] * 16
    busy.apply(busy.plan())
    busy.draws = dict.fromkeys(busy.draws, 100.0)
    plan = busy.plan()
    # 8.0 kW to spare, each may come back with 2.4 kW: three are let go, the fourth keeps its cap
    assert [(action.verb, action.job_id) for action in plan.jobs] == [("uncap", 1), ("uncap", 2), ("uncap", 3)]
    assert caps(plan) == {4: 600.0}


def test_a_cap_of_ours_on_a_job_that_waits_again_is_given_back(busy) -> None:
    busy.envelopes = [FULL_WATTS - 1600.0] * 16
    busy.apply(busy.plan())
    busy.jobs[0] = replace(busy.jobs[0], state=JobState.PENDING, node_names=(), start_wall_s=None)
    actions = [action for action in busy.plan().jobs if action.job_id == 1]
    assert [action.verb for action in actions] == ["uncap"]
    assert actions[0].licenses == {"watts": 3300}


def test_a_preemptible_job_is_requeued_only_after_all_caps_are_at_their_lowest(cluster) -> None:
    cluster.add(1, power_class=PowerClass.PREEMPTIBLE, running_on=[0], slowdown=0.1, ran_s=900.0)
    cluster.add(2, power_class=PowerClass.PREEMPTIBLE, running_on=[1], slowdown=0.1, ran_s=300.0)
    cluster.add(3, power_class=PowerClass.FLEXIBLE, running_on=[2], slowdown=0.1, ran_s=10.0)
    cluster.envelopes = [4000.0] * 16
    first = cluster.plan()
    assert {action.verb for action in first.jobs} == {"cap"}
    cluster.apply(first)
    cluster.draws = dict(first.job_caps)
    second = cluster.plan()
    (requeue,) = [action for action in second.jobs if action.verb == "requeue"]
    assert requeue.job_id == 2  # the youngest preemptible one: least work lost
    assert requeue.licenses == {"watts": 3300}
    mark = parse_mark(requeue.admin_comment)
    assert (mark.requeued, mark.capped_watts) == (1, None)
    assert 2 not in caps(second)


def test_no_user_always_pays(cluster) -> None:
    """Two of ann's jobs are younger than bob's; one of hers was requeued before."""
    lowest = "capped=200,drawn=700"
    for job_id, uid, ran_s, paid in ((1, 1000, 100.0, 1), (2, 1000, 200.0, 0), (3, 1001, 900.0, 0)):
        mark = f"slurm-power:class=preemptible,requeued={paid},{lowest}"
        job = cluster.add(job_id, running_on=[job_id - 1], ran_s=ran_s, uid=uid, gpu_watts=200.0)
        cluster.jobs[-1] = replace(job, admin_comment=mark)
    cluster.envelopes = [2500.0] * 16
    requeued = [action.job_id for action in cluster.plan().jobs if action.verb == "requeue"]
    assert requeued[0] == 3


@pytest.mark.parametrize(
    "changes", [{"requeueable": False}, {"power_class": PowerClass.FLEXIBLE}], ids=["no-requeue", "flexible"]
)
def test_who_did_not_allow_it_is_not_requeued(cluster, changes: dict[str, Any]) -> None:
    cluster.add(1, **({"power_class": PowerClass.PREEMPTIBLE, "running_on": [0]} | changes))
    cluster.envelopes = [500.0] * 16
    for _ in range(3):
        plan = cluster.plan()
        assert all(action.verb != "requeue" for action in plan.jobs)
        cluster.apply(plan)
        cluster.draws = dict(plan.job_caps)


def test_a_job_is_requeued_only_so_often(cluster) -> None:
    job = cluster.add(1, power_class=PowerClass.PREEMPTIBLE, running_on=[0])
    cluster.jobs[0] = replace(job, admin_comment="slurm-power:class=preemptible,requeued=2,capped=200,drawn=700")
    cluster.draws[1] = 200.0
    cluster.envelopes = [500.0] * 16
    assert all(action.verb != "requeue" for action in cluster.plan().jobs)


def test_a_silent_node_is_said_and_counts_with_its_jobs_licences_and_nobody_is_requeued_for_it(busy) -> None:
    busy.silent = {"n3"}
    busy.envelopes = [FULL_WATTS - 800.0] * 16
    plan = busy.plan()
    assert "node n3 is unknown: its jobs count with their licences" in plan.shortfalls
    assert 620.0 <= caps(plan)[1] <= 650.0
    assert 4 in caps(plan)


def test_a_node_that_falls_silent_does_not_make_caps_rise(busy) -> None:
    busy.envelopes = [FULL_WATTS - 1600.0] * 16
    busy.apply(busy.plan())
    busy.draws = dict.fromkeys(busy.draws, 600.0)
    busy.silent = {"n3"}
    plan = busy.plan()
    assert plan.jobs == ()
    assert set(caps(plan).values()) == {600.0}


def test_undo_touches_only_what_carries_our_mark(busy) -> None:
    busy.envelopes = [8000.0] * 4 + [FULL_WATTS] * 12
    busy.apply(busy.plan())
    untouched = busy.add(9, admin_comment="ticket 5")
    plan = undo_relocation(jobs=busy.jobs, reservations=busy.reservations, wall_s=busy.wall_s, config=busy.config)
    assert {action.job_id for action in plan.jobs} == {1, 2, 3, 4}
    assert untouched.job_id not in {action.job_id for action in plan.jobs}
    assert {action.verb for action in plan.reservations} == {"delete"}
    busy.apply(plan)
    again = undo_relocation(jobs=busy.jobs, reservations=busy.reservations, wall_s=busy.wall_s, config=busy.config)
    assert (again.jobs, again.reservations) == ((), ())


JOBS = st.lists(
    st.tuples(
        st.sampled_from(PowerClass),
        st.floats(80.0, 700.0),
        st.one_of(st.none(), st.floats(0.0, 0.9)),
        st.booleans(),
        st.one_of(st.none(), st.floats(200.0, 700.0).map(round)),
    ),
    min_size=1,
    max_size=4,
)


@settings(deadline=None, max_examples=100)
@given(jobs=JOBS, envelopes=st.lists(st.floats(0.0, 14_000.0), min_size=3, max_size=3))
def test_whatever_happens_caps_stay_within_what_each_job_allows_and_firm_jobs_are_untouched(
    new_cluster: Callable[..., Any], jobs: list[Any], envelopes: list[float]
) -> None:
    cluster = new_cluster()
    wants = {}
    for index, (power_class, gpu_watts, slowdown, batch, user_cap) in enumerate(jobs):
        wants[index] = min(gpu_watts, user_cap or 700.0)
        cluster.add(
            index, power_class=power_class, running_on=[index], gpu_watts=wants[index], slowdown=slowdown,
            batch=batch, user_cap=user_cap,
        )  # fmt: skip
    originals = {job.job_id: job for job in cluster.jobs}
    for envelope in envelopes:
        cluster.envelopes = [envelope] * 16
        plan = cluster.plan()
        for action in plan.jobs:
            original = originals[action.job_id]
            assert original.batch
            assert parse_mark(original.admin_comment).request.power_class is not PowerClass.FIRM
            if action.licenses is not None:
                assert all(0 < count <= original.licenses[name] for name, count in action.licenses.items())
        for job_id, cap in plan.job_caps:
            slowdown = parse_mark(originals[job_id].admin_comment).request.max_slowdown_fraction
            allowed = cluster.config.default_max_slowdown_fraction if slowdown is None else slowdown
            assert cap >= cluster.config.min_gpu_cap_watts
            assert throughput_fraction(min(1.0, cap / wants[job_id]), cluster.config) >= 1 - allowed - 1e-6
        cluster.apply(plan)
        held = dict(plan.job_caps)
        cluster.draws = {job_id: min(want, held.get(job_id, want)) for job_id, want in wants.items()}
        if not plan.shortfalls:
            drawn = sum(node.draw_watts for node in cluster.nodes().values())
            unsteered = 16 * cluster.config.cap_step_watts / 2  # changes below half a step are not made
            assert drawn <= envelope + unsteered
