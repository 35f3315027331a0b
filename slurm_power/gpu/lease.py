"""The lease an agent holds. A lease that ran out leaves the site-safe cap, never "uncapped". Pure.

Expired --(lease received)--> Following --(its time is over)--> Expired
                                  ^---(a newer lease)---'
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from slurm_power.gpu.wire import NodeLease


@dataclass(frozen=True, slots=True)
class Following:
    lease: NodeLease
    until_s: float  # monotonic clock of this node


@dataclass(frozen=True, slots=True)
class Expired:
    """No lease holds: none came yet, or the controller went silent."""

    since_s: float


LeaseState = Following | Expired


def on_lease(lease: NodeLease, *, received_at_s: float) -> LeaseState:
    """The newest answer always replaces the one before: a restarted controller may count from one again."""
    return Following(lease, until_s=received_at_s + lease.valid_s)


def on_time(state: LeaseState, *, now_s: float) -> LeaseState:
    match state:
        case Following(until_s=until_s) if now_s >= until_s:
            return Expired(since_s=until_s)
        case Following() | Expired():
            return state
        case _:
            assert_never(state)


def lease_cap_watts(state: LeaseState, uuid: str) -> float | None:
    return state.lease.cap_watts.get(uuid) if isinstance(state, Following) else None


def lease_clock_mhz(state: LeaseState, uuid: str) -> int | None:
    return state.lease.clock_mhz.get(uuid) if isinstance(state, Following) else None


def safe_cap_in_force_watts(state: LeaseState, *, safe_cap_watts: float | None) -> float | None:
    """The site-safe cap, while no lease holds. None: this node has no controller, so no leases either."""
    return safe_cap_watts if isinstance(state, Expired) else None


def remaining_s(state: LeaseState, *, now_s: float) -> float | None:
    return max(0.0, state.until_s - now_s) if isinstance(state, Following) else None
