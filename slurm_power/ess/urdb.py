"""Rates in the format of the U.S. Utility Rate Database (openei.org/services/doc/rest/util_rates). Pure.

What would change the bill and is not understood is refused; what does not is said in the schedule's notes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, tzinfo
from typing import Any

import numpy as np

from slurm_power.errors import ConfigError, require
from slurm_power.ess.rate_parts import Lookback, Matrix, Tier, Tiers, YearHours, hours_of
from slurm_power.ess.rate_schedule import DemandPeriod, EnergyPeriod, RateSchedule
from slurm_power.ess.rates import FixedCharge

_NOT_COUNTED = (
    "demandratchetpercentage",
    "demandreactivepowercharge",
    "fueladjustmentsmonthly",
    "coincidentratestructure",
)


def parse_urdb(
    rate: Mapping[str, Any], *, zone: tzinfo = UTC, holidays: frozenset[date] = frozenset(), currency: str = "USD"
) -> RateSchedule:
    """A rate as the API gives it, or an object with it under `urdb`. Raise ConfigError naming the key."""
    rate = _unwrapped(rate)
    energy = _energy(rate)
    ratchet = _lookback(rate)
    window_minutes = _number(rate.get("demandwindow", 15), "demandwindow")
    return RateSchedule(
        name=str(rate.get("name", "rate")),
        currency=currency,
        zone=zone,
        holidays=holidays,
        metering_interval_s=60.0 * window_minutes,
        energy=energy,
        demand=(*_flat_demand(rate, ratchet), *_timed_demand(rate, ratchet)),
        fixed_charges=_fixed(rate),
        minimum_per_period=_minimum(rate),
        notes=tuple(f"{key} is not counted" for key in _NOT_COUNTED if rate.get(key)),
    )


def _unwrapped(rate: Mapping[str, Any]) -> Mapping[str, Any]:
    if "urdb" in rate:
        rate = rate["urdb"]
    items = rate.get("items")
    if isinstance(items, Sequence) and items:
        require(len(items) == 1, "items", len(items), "holds several rates; give a file with one")
        rate = items[0]
    require(isinstance(rate, Mapping) and "energyratestructure" in rate, "energyratestructure", None, "is missing")
    return rate


def _energy(rate: Mapping[str, Any]) -> tuple[EnergyPeriod, ...]:
    work, rest = _schedule(rate, "energyweekdayschedule"), _schedule(rate, "energyweekendschedule")
    structure = rate["energyratestructure"]
    periods = []
    for number in np.unique([work, rest]).tolist():
        tiers_raw = _period(structure, number, "energyratestructure")
        for tier in tiers_raw:
            unit = tier.get("unit", "kWh")
            require(unit == "kWh", "energyratestructure.unit", unit, "only tiers in kWh per billing period are known")
        sell = _number(tiers_raw[0].get("sell", 0.0), "sell")
        periods.append(
            EnergyPeriod(
                f"energy {number}", hours_of(number, work, rest), _tiers(tiers_raw, "energyratestructure"), sell
            )
        )
    return tuple(periods)


def _flat_demand(rate: Mapping[str, Any], ratchet: Lookback | None) -> tuple[DemandPeriod, ...]:
    """One component: all hours of the months that share a price."""
    structure = rate.get("flatdemandstructure")
    if not structure:
        return ()
    _require_kw(rate, "flatdemandunit")
    of_month = list(rate.get("flatdemandmonths", [0] * 12))
    require(len(of_month) == 12, "flatdemandmonths", of_month, "needs 12 numbers")
    by_tiers: dict[Tiers, set[int]] = {}
    for month, number in enumerate(of_month):
        tiers = _tiers(_period(structure, number, "flatdemandstructure"), "flatdemandstructure")
        by_tiers.setdefault(tiers, set()).add(month)
    names = ["maximum demand"] if len(by_tiers) == 1 else [f"maximum demand {i}" for i in range(len(by_tiers))]
    return tuple(
        DemandPeriod(name, YearHours.always(months), tiers, ratchet)
        for name, (tiers, months) in zip(names, by_tiers.items(), strict=True)
        if _costs(tiers)
    )


def _timed_demand(rate: Mapping[str, Any], ratchet: Lookback | None) -> tuple[DemandPeriod, ...]:
    structure = rate.get("demandratestructure")
    if not structure:
        return ()
    _require_kw(rate, "demandrateunit")
    work, rest = _schedule(rate, "demandweekdayschedule"), _schedule(rate, "demandweekendschedule")
    found = []
    for number in np.unique([work, rest]).tolist():
        tiers = _tiers(_period(structure, number, "demandratestructure"), "demandratestructure")
        if _costs(tiers):
            found.append(DemandPeriod(f"timed demand {number}", hours_of(number, work, rest), tiers, ratchet))
    return tuple(found)


def _costs(tiers: Tiers) -> bool:
    return any(tier.price != 0 for tier in tiers)


def _lookback(rate: Mapping[str, Any]) -> Lookback | None:
    """As REopt reads it: a share of the highest interval of `lookbackRange` earlier months, or of the marked months."""
    lower = {key.lower(): value for key, value in rate.items()}
    fraction = _number(lower.get("lookbackpercent", 0.0) or 0.0, "lookbackpercent")
    if fraction == 0:
        return None
    months = [int(flag) for flag in lower.get("lookbackmonths") or []]
    marked = frozenset(month for month, flag in enumerate(months) if flag)
    within = int(_number(lower.get("lookbackrange", 0) or 0, "lookbackrange"))
    require(bool(marked) or within > 0, "lookbackpercent", fraction, "needs lookbackMonths or lookbackRange")
    return Lookback(
        fraction=fraction, range_months=within or 11, months=marked if marked and not within else frozenset(range(12))
    )


def _fixed(rate: Mapping[str, Any]) -> tuple[FixedCharge, ...]:
    charges = []
    first = _number(rate.get("fixedchargefirstmeter", 0.0) or 0.0, "fixedchargefirstmeter")
    if first:
        unit = rate.get("fixedchargeunits", "$/month")
        require(unit in ("$/day", "$/month"), "fixedchargeunits", unit, "only $/day and $/month are known")
        charges.append(FixedCharge("customer charge", first, per_day=unit == "$/day"))
    monthly = _number(rate.get("fixedmonthlycharge", 0.0) or 0.0, "fixedmonthlycharge")
    if monthly:
        charges.append(FixedCharge("monthly charge", monthly, per_day=False))
    return tuple(charges)


def _minimum(rate: Mapping[str, Any]) -> float:
    minimum = _number(rate.get("mincharge", 0.0) or 0.0, "mincharge")
    unit = rate.get("minchargeunits", "$/month")
    require(minimum == 0 or unit == "$/month", "minchargeunits", unit, "only $/month is known")
    return minimum


def _tiers(raw: Sequence[Mapping[str, Any]], key: str) -> Tiers:
    tiers = [Tier(_number(t.get("rate", 0.0), key) + _number(t.get("adj", 0.0), key), _end(t, key)) for t in raw]
    if tiers and tiers[-1].up_to is not None:
        tiers[-1] = Tier(tiers[-1].price)
    return tuple(tiers)


def _end(tier: Mapping[str, Any], key: str) -> float | None:
    return None if tier.get("max") is None else _number(tier["max"], f"{key}.max")


def _period(structure: Sequence[Any], number: int, key: str) -> Sequence[Mapping[str, Any]]:
    known = 0 <= number < len(structure) and bool(structure[number])
    require(known, key, number, f"is named by a schedule, but only 0..{len(structure) - 1} are there")
    found: Sequence[Mapping[str, Any]] = structure[number]
    return found


def _schedule(rate: Mapping[str, Any], key: str) -> Matrix:
    try:
        hours = np.array(rate[key], dtype=np.int64)
    except KeyError:
        raise ConfigError(f"{key} is missing") from None
    except (TypeError, ValueError) as cause:
        raise ConfigError(f"{key}: must be 12 rows of 24 whole numbers") from cause
    require(hours.shape == (12, 24), key, hours.shape, "must be 12 rows of 24 whole numbers")
    return hours


def _require_kw(rate: Mapping[str, Any], key: str) -> None:
    unit = rate.get(key, "kW")
    require(unit == "kW", key, unit, "only kW is known")


def _number(value: object, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{key} = {value!r}: must be a number")
    return float(value)
