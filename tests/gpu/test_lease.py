"""Leases expire to the site-safe cap."""

from __future__ import annotations

from slurm_power.gpu.lease import (
    Expired,
    Following,
    lease_cap_watts,
    on_lease,
    on_time,
    remaining_s,
    safe_cap_in_force_watts,
)
from slurm_power.gpu.wire import NodeLease

LEASE = NodeLease("n1", 7, valid_s=30.0, cap_watts={"GPU-a": 300.0})


def test_a_lease_holds_from_receipt_until_its_time_is_over() -> None:
    state = on_lease(LEASE, received_at_s=100.0)
    assert on_time(state, now_s=129.9) == Following(LEASE, until_s=130.0)
    assert on_time(state, now_s=130.0) == Expired(since_s=130.0)


def test_an_expired_lease_leaves_the_safe_cap_not_no_cap() -> None:
    state = on_time(on_lease(LEASE, received_at_s=0.0), now_s=31.0)
    assert safe_cap_in_force_watts(state, safe_cap_watts=400.0) == 400.0
    assert lease_cap_watts(state, "GPU-a") is None


def test_while_a_lease_holds_the_safe_cap_does_not_and_unnamed_gpus_are_free() -> None:
    state = on_lease(LEASE, received_at_s=0.0)
    assert safe_cap_in_force_watts(state, safe_cap_watts=400.0) is None
    assert lease_cap_watts(state, "GPU-a") == 300.0
    assert lease_cap_watts(state, "GPU-b") is None


def test_a_restarted_controller_may_count_its_leases_from_one() -> None:
    held = on_lease(LEASE, received_at_s=0.0)
    newer = on_lease(NodeLease("n1", 1, valid_s=30.0), received_at_s=5.0)
    assert isinstance(held, Following)
    assert remaining_s(newer, now_s=5.0) == 30.0


def test_no_lease_has_no_time_left() -> None:
    assert remaining_s(Expired(since_s=0.0), now_s=5.0) is None
