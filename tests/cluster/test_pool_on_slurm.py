"""Two pools on a real Slurm: instances come and go as jobs, clocks move, what dies comes back, no request is lost."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from starlette.applications import Starlette

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from slurm_power.adapters.clock_system import SystemClock  # noqa: E402
from slurm_power.adapters.munge_credentials import MungeCredentials  # noqa: E402
from slurm_power.daemons.pool_budgets import PoolBudgets  # noqa: E402
from slurm_power.llm.pool_wire import Override, override_to_json  # noqa: E402
from slurm_power.testing.cluster import DevCluster  # noqa: E402
from slurm_power.web.pools import pool_routes  # noqa: E402
from slurm_power.web.router_server import bind  # noqa: E402
from tests.cluster.agents import start_agent  # noqa: E402
from tests.cluster.pool_site import CLOCKS, Client, PoolSite, load, pool_site, replay  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.timeout(900)]


@pytest.fixture
def site(slurm: DevCluster) -> Iterator[PoolSite]:
    with pool_site(slurm) as made:
        yield made


@contextmanager
def controllers_door(slurm: DevCluster) -> Iterator[tuple[str, PoolBudgets, MungeCredentials]]:
    """What a controller is to a pool manager, with the cluster's own munge."""
    credentials = MungeCredentials(socket=slurm.layout.munge_socket)
    budgets = PoolBudgets(
        clock=SystemClock(), credentials=credentials, allowed_uids=[0], admin_uids=[0], max_age_s=10.0
    )
    door = bind("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=pool_routes(budgets)), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{door.getsockname()[1]}", budgets, credentials
    finally:
        server.should_exit = True
        thread.join(10.0)


def pools_of(site: PoolSite) -> set[str]:
    return {one["pool"] for one in site.instances() if one["accepts"]}


def test_pools_follow_their_load_and_budgets_and_recover_what_dies(site: PoolSite) -> None:
    with controllers_door(site.slurm) as (controller_url, budgets, credentials):
        site.start(controller_url=controller_url, munge_socket=str(site.slurm.layout.munge_socket))
        site.wait(lambda: pools_of(site) == {"SS", "LL"})
        first = site.serving()[0]
        assert all(0.0 < one["left_s"] <= 600.0 for one in site.instances() if one["accepts"])  # --time=10
        site.wait(lambda: any(lock in CLOCKS[:-1] for lock in site.locks()), timeout_s=60.0)  # nothing to do

        client = Client(site.url, load(50.0, 11.0))
        site.wait(lambda: len(site.serving()) >= 3)  # more of them, as the load is more than it was planned for
        kill_a_job_and_an_agent(site, first)
        answers = client.wait()
        assert [one.status for one in answers if one.status not in (200, 502)] == []
        assert sum(one.status == 502 for one in answers) <= 8  # were being answered by the job that was killed
        assert all(one.joules is not None for one in answers if one.status == 200)
        assert site.jobs().keys() != {first}

        obeys_a_budget(site, budgets, credentials)

        before = site.jobs()
        site.kill()
        site.start(controller_url=controller_url, munge_socket=str(site.slurm.layout.munge_socket))
        site.wait(lambda: len(site.serving()) >= 2, timeout_s=60.0)
        assert site.jobs().keys() <= before.keys()

        site.wait(lambda: len(site.jobs()) == 2)  # the load is gone, and so are the instances but one of each pool
        assert {one.status for one in asyncio.run(replay(site.url, load(2.0, 2.0)))} == {200}


def kill_a_job_and_an_agent(site: PoolSite, job_id: int) -> None:
    node = site.slurm.job_facts(job_id)["NodeList"]
    site.slurm.services.signal(f"agent-{node}", signal.SIGKILL)
    site.slurm.run("scancel", "--signal=KILL", str(job_id))
    site.wait(lambda: job_id not in site.serving(), timeout_s=60.0)
    assert site.slurm.services.wait_until_gone(f"agent-{node}", timeout_s=10.0)
    start_agent(site.slurm, node)
    site.wait(lambda: pools_of(site) == {"SS", "LL"})


def obeys_a_budget(site: PoolSite, budgets: PoolBudgets, credentials: MungeCredentials) -> None:
    """First by the clock, then by the model: here no batch draws less than the lowest clock's prompts do."""

    def wish(watts: float | None) -> None:
        budgets.override(credentials.seal(override_to_json(Override("test", watts, 600.0))))

    def settings() -> list[tuple[str, bool]]:
        serving = [one for one in site.instances() if one["accepts"]]
        return [(one["model"], (one["clock_mhz"] or CLOCKS[-1]) <= CLOCKS[0]) for one in serving]

    # Idle, so that each gets the same share of what its owner may draw.
    site.wait(lambda: all(one["accepts"] and one["draw_watts"] < 80.0 for one in site.instances()))
    wish(190.0 * len(site.serving()))
    site.wait(lambda: all(lowest for _, lowest in settings()), timeout_s=15.0)
    assert set(site.locks()) <= {None, CLOCKS[0]}
    assert {model for model, _ in settings()} == {"large"}
    wish(1.0)
    site.wait(lambda: {model for model, _ in settings()} == {"small"}, timeout_s=60.0)
    wish(None)
    site.wait(lambda: {model for model, _ in settings()} == {"large"}, timeout_s=60.0)
