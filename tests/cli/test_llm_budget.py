"""An admin's watt budget from the command line, over HTTP and sealed, to the controller's books and back."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from click.testing import CliRunner
from starlette.applications import Starlette

from slurm_power import compose_pool
from slurm_power.adapters.clock_system import SystemClock
from slurm_power.cli.main import slurm_power
from slurm_power.daemons.pool_budgets import PoolBudgets
from slurm_power.errors import ConfigError, NotPermitted
from slurm_power.llm.pool_wire import PoolReport, report_to_json
from slurm_power.llm.power_budget import PoolDraw
from slurm_power.testing.fake_credentials import FakeCredentials, FakeKey
from slurm_power.web.pools import pool_routes
from slurm_power.web.router_server import bind

CLOCK = SystemClock()


class Door:
    def __init__(self, tmp_path: Path, url: str, budgets: PoolBudgets) -> None:
        self.url, self.budgets = url, budgets
        self.config = tmp_path / "site.toml"
        self.config.write_text('[controller]\nstate_path = "/x"\n')

    def run(self, *words: str) -> Any:
        arguments = ["llm", *words, "--config", str(self.config), "--url", self.url]
        return CliRunner().invoke(slurm_power, arguments)


@pytest.fixture
def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    """A controller's door, its one pool, and munge's stand-in with one key on both sides."""
    key = FakeKey()
    credentials = FakeCredentials(CLOCK, key)
    monkeypatch.setattr(compose_pool, "MungeCredentials", lambda **_: FakeCredentials(CLOCK, key, uid=0))
    budgets = PoolBudgets(clock=CLOCK, credentials=credentials, allowed_uids=[0], admin_uids=[0], max_age_s=60.0)
    report = PoolReport("llm", (PoolDraw("llm/LL", 900.0, 200.0),))
    budgets.exchange(credentials.seal(report_to_json(report)))
    sock = bind("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=pool_routes(budgets)), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    yield Door(tmp_path, f"http://127.0.0.1:{sock.getsockname()[1]}", budgets)
    server.should_exit = True
    thread.join(10.0)


def test_a_budget_is_set_shown_and_withdrawn(door: Door) -> None:
    done = door.run("budget", "llm/LL", "--watts", "300", "--for", "10m")
    assert (done.exit_code, done.output) == (0, "llm/LL may draw 300 W for 600 s\n")
    (shown,) = json.loads(door.run("pools", "--json").output)
    assert (shown["pool"], shown["draw_watts"], shown["budget_watts"]) == ("llm/LL", 900.0, 300.0)
    assert "300 W" in door.run("pools").output
    assert door.run("budget", "llm", "--off").exit_code == 0
    assert door.budgets.view()[0]["budget_watts"] is None


def test_an_unknown_pool_is_named_with_those_there_are(door: Door) -> None:
    done = door.run("budget", "other/LL", "--watts", "300")
    assert isinstance(done.exception, ConfigError)
    assert "there are llm/LL" in str(done.exception)


def test_who_is_no_admin_is_refused(door: Door) -> None:
    door.budgets._admin_uids = frozenset({7})
    assert isinstance(door.run("budget", "llm/LL", "--watts", "300").exception, NotPermitted)


@pytest.mark.parametrize("words", [("--watts", "3", "--off"), (), ("--watts", "-1"), ("--watts", "5", "--for", "soon")])
def test_half_a_wish_is_wrong_usage(door: Door, words: tuple[str, ...]) -> None:
    assert door.run("budget", "llm/LL", *words).exit_code == 2
