"""What to write down, what to set, what to give back."""

from __future__ import annotations

import pytest

from slurm_power.gpu.borrowing import (
    Borrow,
    Change,
    GiveBack,
    Keep,
    Knob,
    Loan,
    Step,
    cap_step,
    clock_step,
    loan_record,
    read_loans,
)
from slurm_power.gpu.caps import CapSources, ClockSources, effective_cap, effective_clock


def loan(found: float | None = 600.0, knob: Knob = Knob.CAP) -> Loan:
    return Loan("GPU-a", knob, found, 700.0, 200.0, 700.0, "boot-1", 42)


@pytest.mark.parametrize(
    ("user", "enforced", "held", "last_set", "step"),
    [
        pytest.param(None, 600, None, None, Keep(), id="nothing-wanted"),
        pytest.param(300, 600, None, None, Borrow(300), id="first-write-is-a-loan"),
        pytest.param(300, 300, loan(), 300.0, Keep(), id="already-enforced"),
        pytest.param(250, 300, loan(), 300.0, Change(250), id="lower"),
        pytest.param(350, 300, loan(), 300.0, Change(350), id="raise-below-found"),
        pytest.param(300, 700, loan(), 300.0, Change(300), id="somebody-raised-it"),
        pytest.param(300, 250, loan(), 300.0, Keep(), id="somebody-lowered-it"),
        pytest.param(300, 250, loan(), None, Change(300), id="left-by-an-earlier-run"),
        pytest.param(None, 300, loan(), 300.0, GiveBack(600), id="job-over"),
        pytest.param(650, 300, loan(), 300.0, GiveBack(600), id="wish-above-found"),
    ],
)
def test_cap_steps(user: float | None, enforced: float, held: Loan | None, last_set: float | None, step: Step) -> None:
    found = held.found if held is not None and held.found is not None else enforced
    wanted = effective_cap(CapSources(found, 200.0, 700.0, user_watts=user))
    assert cap_step(wanted, enforced_watts=enforced, loan=held, last_set_watts=last_set) == step


@pytest.mark.parametrize(
    ("user", "held", "last_set", "step"),
    [
        pytest.param(None, None, None, Keep(), id="nothing-wanted"),
        pytest.param(1200, None, None, Borrow(1200), id="first-lock-is-a-loan"),
        pytest.param(1200, loan(None, Knob.CLOCK), 1200, Keep(), id="locked-already"),
        pytest.param(1200, loan(None, Knob.CLOCK), None, Change(1200), id="after-a-restart"),
        pytest.param(None, loan(None, Knob.CLOCK), 1200, GiveBack(None), id="job-over"),
    ],
)
def test_clock_steps(user: int | None, held: Loan | None, last_set: float | None, step: Step) -> None:
    wanted = effective_clock(ClockSources(345, 1980, user_mhz=user))
    assert clock_step(wanted, loan=held, last_set_mhz=last_set) == step


def test_a_loan_survives_the_journal() -> None:
    both = (loan(), loan(None, Knob.CLOCK))
    assert read_loans([loan_record(each) for each in both], boot_id="boot-1") == (both, ())


def test_loans_of_another_boot_are_void() -> None:
    assert read_loans([loan_record(loan())], boot_id="boot-2") == ((), ())


def test_an_unreadable_loan_is_named_and_the_others_still_count() -> None:
    broken = {**loan_record(loan()), "found": None}
    loans, unreadable = read_loans([broken, loan_record(loan())], boot_id="boot-1")
    assert loans == (loan(),)
    assert len(unreadable) == 1
