"""Watt budgets of pools: clock before batch before model, and the shortfall is named."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_power.llm.power_budget import PoolDraw, ServedModel, obey, pool_budgets, share_room


@dataclass(frozen=True)
class Linear:
    """Worked numbers: base + 1 W per sequence, times the share of the highest clock."""

    base_watts: float
    clocks_mhz: tuple[int, ...] = (500, 1000)

    def draw_watts(self, *, clock_mhz: int, batch: int) -> float:
        return (self.base_watts + batch) * clock_mhz / 1000


LARGE, SMALL = ServedModel("large", Linear(300.0)), ServedModel("small", Linear(60.0))


@pytest.mark.parametrize(
    ("budget_watts", "model", "clock_mhz", "max_num_seqs", "shortfall_watts"),
    [
        pytest.param(800.0, "large", 1000, 100, 0.0, id="enough"),
        pytest.param(799.0, "large", 500, 100, 0.0, id="clock"),
        pytest.param(380.0, "large", 500, 80, 0.0, id="batch-only-below-the-lowest-clock"),
        pytest.param(300.0, "small", 500, 100, 0.0, id="model-only-below-the-least-batch"),
        pytest.param(50.0, "small", 500, 1, 11.0, id="what-cannot-be-given-is-named"),
    ],
)
def test_a_pool_gives_up_clock_then_batch_then_its_model(
    budget_watts: float, model: str, clock_mhz: int, max_num_seqs: int, shortfall_watts: float
) -> None:
    plan = obey([LARGE, SMALL], instances=2, budget_watts=budget_watts, max_num_seqs=100)
    assert (plan.model, plan.clock_mhz, plan.max_num_seqs) == (model, clock_mhz, max_num_seqs)
    assert plan.shortfall_watts == pytest.approx(shortfall_watts)


@given(st.floats(0, 2000), st.integers(1, 8), st.integers(1, 300))
def test_a_plan_stays_within_its_budget_or_says_by_how_much_not(budget: float, instances: int, seqs: int) -> None:
    plan = obey([LARGE, SMALL], instances=instances, budget_watts=budget, max_num_seqs=seqs)
    assert plan.pool_watts <= budget + plan.shortfall_watts + 1e-6
    assert 1 <= plan.max_num_seqs <= seqs


POOLS = [PoolDraw("a", 1000.0, 400.0), PoolDraw("b", 500.0, 200.0), PoolDraw("c", 100.0, 100.0)]


@pytest.mark.parametrize(
    ("room_watts", "budgets"),
    [
        pytest.param(1300.0, {"a": 800.0, "b": 400.0, "c": 100.0}, id="by-what-each-can-give"),
        pytest.param(0.0, {"a": 400.0, "b": 200.0, "c": 100.0}, id="none-below-its-least"),
        pytest.param(3200.0, {"a": 2000.0, "b": 1000.0, "c": 200.0}, id="each-may-grow-in-proportion"),
    ],
)
def test_room_is_shared_by_what_each_pool_can_give(room_watts: float, budgets: dict[str, float]) -> None:
    assert share_room(POOLS, room_watts=room_watts) == budgets


def test_pools_get_what_the_envelope_leaves_beside_all_other_jobs() -> None:
    plan = {"shed_watts": 500.0, "envelope_watts": 3300.0}
    assert pool_budgets(POOLS, it_watts=3600.0, **plan) == {"a": 800.0, "b": 400.0, "c": 100.0}
    obeying = [PoolDraw("a", 800.0, 400.0), PoolDraw("b", 400.0, 200.0), PoolDraw("c", 100.0, 100.0)]
    assert pool_budgets(obeying, it_watts=3300.0, **plan) == {"a": 800.0, "b": 400.0, "c": 100.0}


def test_no_budgets_without_a_peak_or_without_knowing_the_draw() -> None:
    assert pool_budgets(POOLS, shed_watts=0.0, envelope_watts=100.0, it_watts=3600.0) == {}
    assert pool_budgets(POOLS, shed_watts=1.0, envelope_watts=100.0, it_watts=None) == {}
