"""The utility asks for less than the battery can give: the controller's plan limits a pool of serving jobs, which obeys
by clock, answers every request, and is free again when the event is over."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from slurm_power.testing.processes import wait_for  # noqa: E402
from tests.cluster.pool_site import CLOCKS, Client, PoolSite, load, pools_beside_agents  # noqa: E402

if TYPE_CHECKING:
    from tests.scenarios.conftest import ScenarioSite

pytestmark = [pytest.mark.torch, pytest.mark.timeout(300)]

INSTANCES, EPOCH_S, EVENT_S = 2, 5.0, 20.0
LIMIT_WATTS = 7_500.0
"""A building of 8 kW and idle nodes of 4 kW are more than this and the battery's 4 kW together."""


@pytest.fixture
def pools(site: ScenarioSite) -> Iterator[PoolSite]:
    """Beside a controller that hears the utility. Without the instance layer only budgets move clocks, and there is no
    smaller model to give way to."""
    site.cluster.services.stop("powerd", grace_s=15.0)
    site.write_config(grid_signal={"source": site.directory / "events.json"})
    site.start()
    with pools_beside_agents(site.cluster) as pools:
        pools.start(
            layers="queue",
            pools=["LL"],
            most_instances=INSTANCES,
            small_model="",
            instance_period_s=EPOCH_S,
            controller_url=site.url,
            munge_socket=str(site.cluster.layout.munge_socket),
        )
        pools.wait(lambda: len(pools.serving()) == INSTANCES)
        yield pools


def test_a_pool_obeys_the_plan_by_clock_within_an_epoch_and_is_free_after(site: ScenarioSite, pools: PoolSite) -> None:
    jobs, client = pools.jobs(), Client(pools.url, load(1.5 * EVENT_S, 1.0))
    assert (budget_watts(site), locked_clocks(pools)) == (None, [])

    ends_at_wall_s = ask_for_less(site)
    assert wait_for(lambda: budget_watts(site) is not None, timeout_s=10.0, poll_s=0.1), site.api("plan")
    assert wait_for(lambda: locked_clocks(pools) == [CLOCKS[0]] * INSTANCES, timeout_s=EPOCH_S), pools.view()

    assert wait_for(lambda: budget_watts(site) is None, timeout_s=2 * EVENT_S, poll_s=0.1), site.api("plan")
    assert time.time() >= ends_at_wall_s
    assert wait_for(lambda: locked_clocks(pools) == [], timeout_s=EPOCH_S), pools.view()

    assert {one.status for one in client.wait()} == {200}
    assert pools.jobs() == jobs


def ask_for_less(site: ScenarioSite) -> float:
    """An event of OpenADR 3 that begins now; when it ends."""
    begins_at_wall_s = time.time()
    start = datetime.fromtimestamp(begins_at_wall_s, UTC).isoformat()
    period = {"start": start, "duration": f"PT{EVENT_S:.0f}S"}
    limit = {"type": "IMPORT_CAPACITY_LIMIT", "values": [LIMIT_WATTS / 1000]}
    event = {"eventName": "peak", "intervals": [{"intervalPeriod": period, "payloads": [limit]}]}
    written = site.directory / "events.new"
    written.write_text(json.dumps([event]))
    written.rename(site.directory / "events.json")
    return begins_at_wall_s + EVENT_S


def budget_watts(site: ScenarioSite) -> float | None:
    """Of the only pool, as the controller shows it."""
    (pool,) = site.api("pools")
    found: float | None = pool["budget_watts"]
    return found


def locked_clocks(pools: PoolSite) -> list[int]:
    """Of all boards of the cluster that have a lock."""
    return [clock_mhz for clock_mhz in pools.locks() if clock_mhz is not None]
