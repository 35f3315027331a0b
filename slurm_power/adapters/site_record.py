"""What the controller wrote down about the site over a period, out of a telemetry store, hours at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from slurm_power.ess.rates import Rates
from slurm_power.ess.site_period import SERIES, Action, SitePeriod, site_period
from slurm_power.monitoring.slot_averages import SlotAverages
from slurm_power.ports.telemetry_store import Point, TelemetryStore

CHUNK_S = 21_600.0
MAX_GAP_S = 150.0
"""A store keeps one point a minute of old ones."""

UNTARIFFED_INTERVAL_S = 900.0


def read_site_period(
    store: TelemetryStore,
    *,
    since_wall_s: float,
    until_wall_s: float,
    rates: Rates | None,
    tell: Callable[[float], None],
) -> SitePeriod:
    """Raise Unavailable when the store cannot be read."""
    interval_s = UNTARIFFED_INTERVAL_S if rates is None else rates.metering_interval_s
    averages = {name: SlotAverages(slot_s=interval_s, max_gap_s=MAX_GAP_S) for name in SERIES}
    targets: dict[float, float] = {}
    for point in _points(store, "site", since_wall_s, until_wall_s):
        for name, means in averages.items():
            means.add(point.wall_s, _number(point, name))
        target = _number(point, "target_watts")
        if target is not None:
            targets[point.wall_s // interval_s * interval_s] = target
        tell((point.wall_s - since_wall_s) / (until_wall_s - since_wall_s))
    return site_period(
        {name: means.slots() for name, means in averages.items()},
        targets,
        map(_action, _points(store, "decision", since_wall_s, until_wall_s)),
        (text for point in _points(store, "plan", since_wall_s, until_wall_s) if (text := _text(point, "shortfalls"))),
        since_wall_s=since_wall_s,
        until_wall_s=until_wall_s,
        interval_s=interval_s,
        rates=rates,
    )


def decisions_about_job(
    store: TelemetryStore, job_id: int, *, since_wall_s: float, until_wall_s: float
) -> list[Action]:
    actions = map(_action, _points(store, "decision", since_wall_s, until_wall_s))
    return [action for action in actions if action.subject == f"job {job_id}"]


def _points(store: TelemetryStore, measurement: str, since_s: float, until_s: float) -> Iterator[Point]:
    while since_s < until_s:
        end_s = min(since_s + CHUNK_S, until_s)
        yield from store.read(measurement, since_wall_s=since_s, until_wall_s=end_s)
        since_s = end_s


def _action(point: Point) -> Action:
    texts = (_text(point, name) for name in ("subject", "reason", "failure"))
    return Action(point.wall_s, point.tags.get("verb", ""), *texts)


def _number(point: Point, name: str) -> float | None:
    value = point.fields.get(name)
    return float(value) if isinstance(value, float | int) else None


def _text(point: Point, name: str) -> str:
    value = point.fields.get(name)
    return value if isinstance(value, str) else ""
