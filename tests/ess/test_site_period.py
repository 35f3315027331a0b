"""The site over a period, in worked numbers."""

from __future__ import annotations

import pytest

from slurm_power.ess.site_period import Action, SitePeriod, site_period
from slurm_power.ess.tariff import EnergyPrice, Tariff
from slurm_power.monitoring.slot_averages import SlotMean
from slurm_power.units import JOULES_PER_KWH

HOUR_S = 3600.0
WATTS = [1000.0, 3000.0, None, 2000.0]


def period(**changes: object) -> SitePeriod:
    slots = [SlotMean(index * HOUR_S, watts, 1.0 if watts else 0.0) for index, watts in enumerate(WATTS)]
    given: dict[str, object] = {
        "since_wall_s": 0.0,
        "until_wall_s": 4 * HOUR_S,
        "interval_s": HOUR_S,
        "rates": None,
        **changes,
    }
    return site_period(
        {"grid_import_watts": slots, "charge_watts": slots[:1]},
        {HOUR_S: 2500.0, 3 * HOUR_S: 2500.0},
        [
            Action(1.0, "cap", "job 1", "the peak", ""),
            Action(2.0, "cap", "job 2", "the peak", "Slurm said no"),
            Action(3.0, "cap", "job 3", "the evening", ""),
            Action(4.0, "defer", "job 4", "cheaper later", ""),
        ],
        ["too little battery", "too little battery"],
        **given,  # type: ignore[arg-type]
    )


def test_peaks_are_the_highest_intervals_first() -> None:
    assert [(peak.start_wall_s, peak.watts) for peak in period().peaks] == [
        (HOUR_S, 3000),
        (3 * HOUR_S, 2000),
        (0, 1000),
    ]


def test_what_is_not_known_is_in_no_sum_and_is_said() -> None:
    found = period()
    assert found.known_fraction == 0.75
    assert found.joules["grid_import_watts"] == 6000 * HOUR_S
    assert found.joules["charge_watts"] == 1000 * HOUR_S
    assert found.joules["it_watts"] is None


def test_time_above_the_target_in_force_is_counted_by_interval() -> None:
    assert period().over_target_s == HOUR_S


def test_the_bill_is_of_the_known_intervals() -> None:
    tariff = Tariff(
        energy_prices=(EnergyPrice(start_s=0.0, price_per_kwh=0.5),),
        demand_price_per_kw=10.0,
        metering_interval_s=HOUR_S,
    )
    bill = period(rates=tariff).bill
    assert bill is not None
    assert bill.energy_cost == pytest.approx(6000 * HOUR_S / JOULES_PER_KWH * 0.5)
    assert bill.demand_cost == pytest.approx(30.0)
    assert period().bill is None


def test_actions_are_counted_with_their_reasons_and_refusals() -> None:
    cap, defer = period().actions
    assert (cap.verb, cap.done, cap.refused) == ("cap", 2, 1)
    assert cap.reasons == (("the peak", 2), ("the evening", 1))
    assert (defer.done, defer.refused) == (1, 0)
    assert period().shortfalls == (("too little battery", 2),)
