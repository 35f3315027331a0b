"""The live power in a Redfish resource. Pure: JSON in, watts out; a mean over minutes is not live and never taken.

Read: EnvironmentMetrics and PowerDistributionMetrics (PowerWatts), and the older Power (PowerControl).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from slurm_power.errors import Unavailable


def live_watts(resource: object, *, member_id: str = "") -> float:
    """`member_id`: which PowerControl of several. Raise Unavailable, saying what is missing."""
    if not isinstance(resource, Mapping):
        raise Unavailable("the resource is no JSON object")
    if "PowerControl" in resource:
        return _consumed_watts(_member(resource["PowerControl"], member_id))
    if "PowerWatts" in resource:
        sensor = resource["PowerWatts"]
        return _number(sensor.get("Reading") if isinstance(sensor, Mapping) else None, "PowerWatts.Reading")
    raise Unavailable(f"{_kind(resource)} has neither PowerWatts nor PowerControl")


def _member(members: object, member_id: str) -> Mapping[str, object]:
    """Some list CPUs and memory beside the whole server, so of several none is taken unasked, and none are summed."""
    if not isinstance(members, Sequence) or not all(isinstance(one, Mapping) for one in members):
        raise Unavailable("PowerControl is no list of objects")
    if member_id:
        members = [one for one in members if one.get("MemberId") == member_id]
    if len(members) == 1:
        only: Mapping[str, object] = members[0]
        return only
    if not members:
        raise Unavailable(f"no PowerControl with MemberId {member_id}" if member_id else "PowerControl is empty")
    listed = ", ".join(f"{one.get('MemberId')} ({one.get('Name')})" for one in members)
    raise Unavailable(f"several PowerControl, member_id must say which: {listed}")


def _consumed_watts(control: Mapping[str, object]) -> float:
    metrics = control.get("PowerMetrics")
    if control.get("PowerConsumedWatts") is None and isinstance(metrics, Mapping) and "AverageConsumedWatts" in metrics:
        raise Unavailable(f"has only a mean over {metrics.get('IntervalInMin')} min (PowerMetrics), which is not live")
    return _number(control.get("PowerConsumedWatts"), "PowerConsumedWatts")


def _number(value: object, name: str) -> float:
    if value is None:
        raise Unavailable(f"{name} is null or missing")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Unavailable(f"{name} is no number but {str(value)[:40]!r}")
    return float(value)


def _kind(resource: Mapping[str, object]) -> str:
    return str(resource.get("@odata.type") or resource.get("Name") or "the resource")[:80]
