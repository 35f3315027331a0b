"""A program solved again with other bounds, and nothing printed."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from slurm_power.ess.linear_program import LinearProgram

SOLVE = """
from slurm_power.ess.linear_program import LinearProgram
lp = LinearProgram()
lp.rows([(lp.variables(1, cost=1.0), 1.0)], lower=2.0)
lp.solve()
"""


def test_each_solve_answers_its_own_bounds() -> None:
    lp = LinearProgram()
    bought, made = lp.variables(2, cost=3.0), lp.variables(2, cost=1.0, upper=4.0)
    demand = lp.rows([(bought, 1.0), (made, 1.0)], lower=0.0, upper=0.0)
    program = lp.open()
    program.fix_rows(demand, np.array([3.0, 6.0]))
    first = program.solve()
    program.fix_rows(demand, np.array([5.0, 1.0]))
    program.bound_columns(made, upper=np.array([2.0, 2.0]))
    second = program.solve()
    assert first is not None
    assert second is not None
    assert first[made].tolist() == pytest.approx([3.0, 4.0])
    assert second[bought].tolist() == pytest.approx([3.0, 0.0])


def test_a_program_without_an_answer_has_none() -> None:
    lp = LinearProgram()
    lp.rows([(lp.variables(1, upper=1.0), 1.0)], lower=2.0)
    assert lp.solve() is None


def test_the_solver_prints_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", SOLVE], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("", "")
