"""Bills against arithmetic done by hand."""

from __future__ import annotations

import pytest

from slurm_power.errors import ConfigError
from slurm_power.ess.bill import BilledInterval, bill, metering_intervals
from slurm_power.ess.tariff import EnergyPrice, Tariff

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S


def tariff(**changes: object) -> Tariff:
    values: dict[str, object] = {
        "energy_prices": (
            EnergyPrice(start_s=0.0, price_per_kwh=0.10),
            EnergyPrice(start_s=8 * HOUR_S, price_per_kwh=0.30),
            EnergyPrice(start_s=20 * HOUR_S, price_per_kwh=0.10),
        ),
        "demand_price_per_kw": 10.5,
    }
    return Tariff(**(values | changes))  # type: ignore[arg-type]


def test_the_price_follows_the_time_of_day_also_on_later_days() -> None:
    plan = tariff()
    assert [plan.price_at(t) for t in (0.0, 8 * HOUR_S - 1, 8 * HOUR_S, 20 * HOUR_S)] == [0.1, 0.1, 0.3, 0.1]
    assert plan.price_at(1000 * DAY_S + 9 * HOUR_S) == 0.3


def test_a_compressed_day_repeats_after_its_own_period() -> None:
    prices = (EnergyPrice(start_s=0.0, price_per_kwh=0.1), EnergyPrice(start_s=90.0, price_per_kwh=0.4))
    plan = tariff(energy_prices=prices, period_s=180.0, metering_interval_s=10.0, billing_period_s=180.0)
    assert [plan.price_at(t) for t in (0.0, 89.0, 90.0, 179.0, 180.0, 275.0)] == [0.1, 0.1, 0.4, 0.4, 0.1, 0.4]


def test_the_bill_of_a_flat_day() -> None:
    day = metering_intervals([1000.0] * 96, start_wall_s=0.0, step_s=900.0)
    result = bill(day, tariff=tariff())
    assert result.energy_cost == pytest.approx(12 * 0.10 + 12 * 0.30)
    assert result.demand_cost == pytest.approx(10.5)
    assert result.total == pytest.approx(15.3)
    assert result.peak_watts == 1000.0
    assert result.energy_joules == pytest.approx(24 * 3.6e6)


def test_only_the_highest_interval_of_a_billing_period_is_paid_and_each_period_pays_its_own() -> None:
    plan = tariff(billing_period_s=DAY_S, energy_prices=(EnergyPrice(start_s=0.0, price_per_kwh=0.0),))
    days = metering_intervals(
        [1000.0] * 50 + [10_500.0] + [1000.0] * 45 + [2000.0] * 96, start_wall_s=0.0, step_s=900.0
    )
    assert bill(days, tariff=plan).demand_cost == pytest.approx(10.5 * (10.5 + 2.0))


def test_an_interval_over_a_price_change_pays_each_part_its_price() -> None:
    interval = BilledInterval(start_wall_s=7.5 * HOUR_S, length_s=HOUR_S, joules=3.6e6)
    assert bill([interval], tariff=tariff(demand_price_per_kw=0.0)).energy_cost == pytest.approx(0.20)


def test_the_mean_is_billed_not_the_spike() -> None:
    interval = BilledInterval(0.0, 900.0, 450 * 20_000.0)
    assert bill([interval], tariff=tariff()).peak_watts == pytest.approx(10_000.0)


def test_no_intervals_cost_nothing() -> None:
    assert bill([], tariff=tariff()).total == 0.0


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"energy_prices": ()}, "energy_prices"),
        ({"energy_prices": (EnergyPrice(start_s=5.0, price_per_kwh=0.1),)}, "energy_prices"),
        ({"energy_prices": (EnergyPrice(start_s=0.0, price_per_kwh=-0.1),)}, "price_per_kwh"),
        ({"demand_price_per_kw": -1.0}, "demand_price_per_kw"),
        ({"billing_period_s": 1000.0}, "billing_period_s"),
        ({"export_price_per_kwh": 0.1}, "export_price_per_kwh"),
    ],
)
def test_a_bad_tariff_is_refused_by_key(changes: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        tariff(**changes)
