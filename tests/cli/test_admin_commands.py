"""hold, observe and target against a controller that really listens, with and without the right."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from slurm_power.cli.main import slurm_power
from slurm_power.daemons.admin_desk import AdminDesk
from slurm_power.errors import ConfigError, NotPermitted, Unavailable
from slurm_power.testing.fake_clock import FakeClock
from slurm_power.testing.fake_journal import FakeJournal
from slurm_power.web.tokens import read_admin_tokens
from tests.web.made_up_site import MadeUpSite
from tests.web.served import served

TOKEN = "5f8a1c0e9b7d42638f1e0a9c"


class Bench:
    def __init__(self, url: str, desk: AdminDesk, token_file: Path, site: MadeUpSite) -> None:
        self.url, self.desk, self.token_file, self.site = url, desk, token_file, site

    def run(self, *words: str, token_file: Path | None = None) -> Result:
        arguments = [*words, "--url", self.url, "--token-file", str(token_file or self.token_file)]
        return CliRunner().invoke(slurm_power, arguments)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    token_file = tmp_path / "tokens"
    token_file.write_text(f"ops {TOKEN}\n")
    token_file.chmod(0o600)
    desk = AdminDesk(journal=FakeJournal(), clock=FakeClock(), grid_limit_watts=20_000.0)
    with served(MadeUpSite(nodes=1), admin=desk, tokens=read_admin_tokens(token_file)) as running:
        yield Bench(running.url, desk, token_file, running.site)


def test_hold_lasts_half_an_hour_unless_told_otherwise(bench: Bench) -> None:
    assert "held until" in bench.run("hold").output
    hold = bench.desk.current().hold
    assert hold is not None
    assert hold.until_wall_s == hold.since_wall_s + 1800
    bench.site.overrides = bench.desk.current()
    shown = CliRunner().invoke(slurm_power, ["status", "--url", bench.url], env={"COLUMNS": "200"}).output
    assert "Asked for: hold until" in shown
    assert json.loads(bench.run("hold", "--for", "2h", "--why", "test", "--json").output)["hold"]["why"] == "test"
    assert "decides again" in bench.run("hold", "--off").output
    assert bench.desk.current().hold is None


def test_observe_and_back(bench: Bench) -> None:
    assert "observing only, asked by ops" in bench.run("observe").output
    assert bench.desk.current().observe is not None
    assert "managing again" in bench.run("observe", "--off").output


def test_target_is_set_shown_and_cleared(bench: Bench) -> None:
    assert (
        "promised: 9.00 kW until it is taken back, by ops: heat" in bench.run("target", "9000", "--why", "heat").output
    )
    assert "defended now" in bench.run("target").output
    assert "no admin has promised a target" in bench.run("target", "--clear").output
    assert bench.desk.current().target is None


@pytest.mark.parametrize(
    "words", [("hold", "--for", "soon"), ("hold", "--for", "0m"), ("target", "-5"), ("target", "5", "--clear")]
)
def test_what_makes_no_sense_is_refused_before_anybody_is_asked(bench: Bench, words: tuple[str, ...]) -> None:
    assert bench.run(*words).exit_code == 2


def test_what_the_controller_refuses_is_told_in_its_words(bench: Bench, tmp_path: Path) -> None:
    done = bench.run("target", "21000")
    assert isinstance(done.exception, ConfigError)
    assert "grid limit" in str(done.exception)
    wrong = tmp_path / "wrong"
    wrong.write_text(f"ops {TOKEN[::-1]}\n")
    wrong.chmod(0o600)
    done = bench.run("hold", token_file=wrong)
    assert isinstance(done.exception, NotPermitted)
    assert bench.desk.current().hold is None


def test_a_controller_that_is_away_is_told(bench: Bench) -> None:
    done = CliRunner().invoke(
        slurm_power, ["hold", "--url", "http://127.0.0.1:1", "--token-file", str(bench.token_file)]
    )
    assert isinstance(done.exception, Unavailable)


def test_a_token_that_anybody_may_read_is_not_used(bench: Bench) -> None:
    bench.token_file.chmod(0o644)
    done = bench.run("hold")
    assert isinstance(done.exception, ConfigError)
    assert TOKEN not in str(done.exception)
