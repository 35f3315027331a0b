from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_power.monitoring.energy import Used
from slurm_power.monitoring.energy_account import Worth, account_of
from slurm_power.monitoring.energy_marks import Holder, Stretch
from slurm_power.monitoring.energy_nodes import Beside, NodeStretch, shares_of

JOB = Holder(7, 1000)


def stretch(from_s: float, to_s: float, holder: Holder | None, joules: float, uuid: str = "GPU-a") -> Stretch:
    return Stretch("n1", uuid, from_s, to_s, holder, Used(counted_joules=joules))


def test_an_attempt_over_several_gpus_is_one_and_a_requeue_is_another() -> None:
    stretches = [
        stretch(0, 100, JOB, 10.0),
        stretch(1, 101, JOB, 20.0, "GPU-b"),
        stretch(300, 400, JOB, 30.0, "GPU-b"),
    ]
    account = account_of(stretches, [Beside()] * 3, [Worth(1.0, None)] * 3)
    first, second = account.jobs[7].attempts
    assert (first.begin_wall_s, first.end_wall_s, len(first.uuids), first.spent.joules) == (0, 101, 2, 30.0)
    assert (second.length_s, second.spent.joules) == (100, 30.0)
    assert account.jobs[7].spent.worth == Worth(3.0, None)


@given(st.floats(1, 99))
def test_two_periods_that_follow_each_other_are_one(cut_s: float) -> None:
    whole = stretch(0, 100, JOB, 500.0)
    parts = [whole.within(0, cut_s), whole.within(cut_s, 100)]
    accounts = [account_of([part], [Beside(1.0, 2.0)], [Worth(0.0, 0.0)]) for part in parts if part]
    (attempt,) = (accounts[0] + accounts[1]).jobs[7].attempts
    assert (attempt.begin_wall_s, attempt.end_wall_s) == (0, 100)
    assert attempt.spent.gpu.joules == pytest.approx(500.0)
    assert attempt.spent.beside == Beside(2.0, 4.0)


Held = list[tuple[float, float, bool]]
held_times = st.lists(st.tuples(st.floats(0, 900), st.floats(1, 300), st.booleans()), max_size=8)


@given(held_times, held_times)
def test_jobs_never_carry_more_than_the_node_drew(first: Held, second: Held) -> None:
    nodes = [NodeStretch("n1", 100.0 * i, 100.0 * (i + 1), 2, Beside(50.0, 500.0)) for i in range(10)]
    stretches: list[Stretch] = []
    for uuid, times in (("GPU-a", first), ("GPU-b", second)):
        at_s = 0.0
        for start_s, length_s, held in sorted(times):
            begin_s = max(at_s, start_s)
            stretches.append(stretch(begin_s, begin_s + length_s, JOB if held else None, 1.0, uuid))
            at_s = begin_s + length_s
    shares = shares_of(stretches, nodes)
    assert sum(share.joules for share in shares) <= 10 * 550.0 * (1 + 1e-9)
    for one, share in zip(stretches, shares, strict=True):
        inside_s = max(0.0, min(one.to_wall_s, 1000.0) - one.from_wall_s)
        assert share.joules == pytest.approx(5.5 * inside_s / 2)


def test_unknown_is_not_nothing() -> None:
    account = account_of([stretch(0, 10, JOB, 1.0)], [Beside()], [Worth(None, 5.0)])
    spent = account.jobs[7].spent
    assert (spent.beside.cpu_joules, spent.worth.money, spent.worth.carbon_grams) == (None, None, 5.0)
