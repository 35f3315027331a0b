"""Published rates, read as they are."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slurm_power.errors import ConfigError
from slurm_power.ess.bill import BilledInterval, bill
from slurm_power.ess.rate_parts import Lookback
from slurm_power.ess.urdb import parse_urdb
from slurm_power.monitoring.load_table import read_load_table

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the public data set is not beside the project")

HOURS = [[0] * 24 for _ in range(12)]
SMALL: dict[str, Any] = {
    "name": "small",
    "energyratestructure": [[{"rate": 0.1, "adj": 0.02, "unit": "kWh"}]],
    "energyweekdayschedule": HOURS,
    "energyweekendschedule": HOURS,
    "flatdemandstructure": [[{"rate": 5.0, "max": 10.0}, {"rate": 8.0}], [{"rate": 2.0}]],
    "flatdemandmonths": [0] * 6 + [1] * 6,
}


def changed(**values: Any) -> dict[str, Any]:
    return deepcopy(SMALL) | values


def test_rates_and_their_adjustments_are_added() -> None:
    assert parse_urdb(SMALL).energy[0].tiers[0].price == pytest.approx(0.12)


def test_months_of_equal_price_are_one_component() -> None:
    rates = parse_urdb(changed(flatdemandmonths=[1] * 12))
    assert [(d.name, len(d.hours.months)) for d in rates.demand] == [("maximum demand", 12)]
    assert [len(d.hours.months) for d in parse_urdb(SMALL).demand] == [6, 6]


def test_the_api_answer_and_a_saved_rate_read_alike() -> None:
    for wrapped in ({"items": [SMALL]}, {"src": "somewhere", "urdb": SMALL}):
        assert parse_urdb(wrapped).name == "small"


def test_the_metering_interval_is_the_demand_window() -> None:
    assert parse_urdb(changed(demandwindow=30)).metering_interval_s == 1800
    assert parse_urdb(SMALL).metering_interval_s == 900


def test_a_lookback_becomes_a_ratchet() -> None:
    by_range = parse_urdb(changed(lookbackPercent=0.35, lookbackRange=11)).demand[0].lookback
    by_month = parse_urdb(changed(lookbackPercent=0.75, lookbackMonths=[1, 0, 0, 1] + [0] * 7 + [1])).demand[0].lookback
    assert by_range == Lookback(fraction=0.35, range_months=11)
    assert by_month == Lookback(fraction=0.75, range_months=11, months=frozenset({0, 3, 11}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"energyratestructure": None}, "energyratestructure"),
        ({"energyweekdayschedule": [[0] * 24] * 11}, "energyweekdayschedule = .*12 rows of 24"),
        ({"energyweekendschedule": [["x"] * 24] * 12}, "energyweekendschedule: must be 12 rows"),
        ({"energyweekdayschedule": [[3] * 24] * 12}, "energyratestructure = 3: is named by a schedule"),
        ({"energyratestructure": [[{"rate": "cheap"}]]}, "energyratestructure = 'cheap': must be a number"),
        ({"energyratestructure": [[{"rate": 0.1, "unit": "kWh/kW"}]]}, "unit = kWh/kW"),
        ({"flatdemandunit": "hp"}, "flatdemandunit = hp: only kW"),
        ({"flatdemandmonths": [0] * 3}, "flatdemandmonths"),
        ({"demandwindow": 7}, "metering_interval_s = 420"),
        ({"fixedchargefirstmeter": 3, "fixedchargeunits": "$/year"}, "fixedchargeunits"),
        ({"lookbackPercent": 0.5}, "lookbackpercent = 0.5: needs"),
        ({"items": [1, 2]}, "items = 2"),
    ],
)
def test_what_is_not_understood_is_named(values: dict[str, Any], message: str) -> None:
    rate = changed(**values)
    if values.get("energyratestructure", 0) is None:
        del rate["energyratestructure"]
    with pytest.raises(ConfigError, match=message):
        parse_urdb(rate)


def test_what_is_left_out_of_the_bill_is_said() -> None:
    assert parse_urdb(changed(demandreactivepowercharge=0.4)).notes == ("demandreactivepowercharge is not counted",)


@needs_data
@pytest.mark.parametrize("name", ["PGE_E19_secondary_2019", "Entergy_AR_LPS_TOU_2018", "REopt_flat18_tou10_example"])
def test_the_published_rates_load_as_they_are(name: str) -> None:
    rates = parse_urdb(json.loads((DATA / "tariffs" / f"{name}.json").read_text()))
    assert rates.demand
    assert rates.metering_interval_s == 900


@needs_data
def test_the_substations_2019_costs_under_pge_e19_what_others_found() -> None:
    """Energy and demand, without the customer charge: the published floor's figures, to the dollar."""
    rates = parse_urdb(json.loads((DATA / "tariffs" / "PGE_E19_secondary_2019.json").read_text()))
    with (DATA / "load" / "wpd_substation_30min.csv").open() as lines:
        table = read_load_table(lines)
    year = (table.wall_s >= 1_546_300_800) & (table.wall_s < 1_577_836_800)
    intervals = [
        BilledInterval(s, 1800.0, w * 1800.0)
        for s, w in zip(table.wall_s[year].tolist(), table.watts[year].tolist(), strict=True)
    ]
    due = bill(intervals, tariff=rates)
    assert np.round(due.demand_cost) == pytest.approx(1_696_358)
    assert np.round(due.energy_cost + due.demand_cost) == pytest.approx(4_253_754)
