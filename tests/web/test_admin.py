"""Who may change something over HTTP: only whoever has a token, from our own page or command, and with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from slurm_power.daemons.admin_desk import AdminDesk
from slurm_power.daemons.controller_view import Event
from slurm_power.errors import ConfigError
from slurm_power.testing.fake_clock import FakeClock
from slurm_power.testing.fake_journal import FakeJournal
from slurm_power.web.app import create_app
from slurm_power.web.tokens import OWN_HEADER, AdminTokens, read_admin_tokens
from tests.web.made_up_site import MadeUpSite

TOKEN = "5f8a1c0e9b7d42638f1e0a9c"
GOOD = {OWN_HEADER: "test", "Authorization": f"Bearer {TOKEN}", "Origin": "http://testserver"}
HOLD = {"for_s": 1800, "why": "the transformer is being looked at"}


class Site:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.desk = AdminDesk(journal=FakeJournal(), clock=FakeClock(), grid_limit_watts=20_000.0)
        self.desk.on_event = self.events.append
        tokens = AdminTokens({"ops": TOKEN, "night": "0123456789abcdef01234567"})
        self.http = TestClient(create_app(MadeUpSite(nodes=1), admin=self.desk, tokens=tokens))

    def post(self, action: str, content: Any, headers: dict[str, str] | None = None) -> Any:
        return self.http.post(f"/api/admin/{action}", json=content, headers=GOOD if headers is None else headers)

    @property
    def untouched(self) -> bool:
        current = self.desk.current()
        return not self.events and (current.observe, current.hold, current.target) == (None, None, None)


@pytest.fixture
def site() -> Site:
    return Site()


def test_a_hold_is_granted_and_told_with_who_and_why(site: Site) -> None:
    answer = site.post("hold", HOLD)
    assert answer.status_code == 200
    assert answer.json()["hold"]["who"] == "ops"
    (event,) = site.events
    assert (event.verb, event.subject) == ("hold", "controller")
    assert event.reason == "ops: the transformer is being looked at (for 30 min)"


@pytest.mark.parametrize("action", ["observe", "hold", "target"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Authorization", None),
        ("Authorization", "Bearer wrong"),
        ("Authorization", "Bearer "),
        ("Authorization", f"Basic {TOKEN}"),
        ("Authorization", f"Bearer {TOKEN[:-1]}"),
        (OWN_HEADER, None),
        ("Origin", "http://evil.example"),
        ("Origin", "null"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
    ],
)
def test_nothing_changes_without_token_own_header_and_own_origin(
    site: Site, action: str, name: str, value: str | None
) -> None:
    headers = {**GOOD, name: value} if value is not None else {key: GOOD[key] for key in GOOD if key != name}
    answer = site.post(action, {**HOLD, "watts": 9000.0}, headers)
    assert answer.status_code == 403
    assert TOKEN not in answer.text
    assert site.untouched


def test_a_form_of_another_page_is_refused(site: Site) -> None:
    answer = site.http.post("/api/admin/hold", data={"for_s": "60", "why": "x"}, headers=GOOD)
    assert answer.status_code == 400
    assert "application/json" in answer.text
    assert site.untouched


def test_no_origin_may_ask_in_advance(site: Site) -> None:
    asks = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    answer = site.http.options("/api/admin/hold", headers=asks)
    assert answer.status_code == 405
    assert "access-control-allow-origin" not in answer.headers


def test_a_get_changes_nothing(site: Site) -> None:
    assert site.http.get("/api/admin/hold", headers=GOOD).status_code == 405


@pytest.mark.parametrize(
    ("action", "content", "said"),
    [
        ("hold", {"for_s": 60}, "why"),
        ("hold", {"for_s": 60, "why": "  "}, "why"),
        ("hold", {"for_s": 60, "why": "a\nb"}, "why"),
        ("hold", {"for_s": 60, "why": "\x1b[31m"}, "why"),
        ("hold", {"for_s": 60, "why": "x" * 201}, "why"),
        ("hold", {"why": "x"}, "for_s"),
        ("hold", {"for_s": 0, "why": "x"}, "for_s"),
        ("hold", {"for_s": -5, "why": "x"}, "for_s"),
        ("hold", {"for_s": 86_401, "why": "x"}, "for_s"),
        ("hold", {"for_s": True, "why": "x"}, "for_s"),
        ("hold", {"for_s": "60", "why": "x"}, "for_s"),
        ("hold", {"on": "no", "why": "x"}, "on"),
        ("target", {"why": "x"}, "watts"),
        ("target", {"watts": 0, "why": "x"}, "watts"),
        ("target", {"watts": 20_001, "why": "x"}, "grid limit"),
        ("target", {"watts": "9 kW", "why": "x"}, "watts"),
        ("hold", [1], "JSON object"),
        ("hold", "x", "JSON object"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused_in_one_line(site: Site, action: str, content: Any, said: str) -> None:
    answer = site.post(action, content)
    assert answer.status_code == 400
    assert said in answer.text
    assert "\n" not in answer.text
    assert site.untouched


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"for_s": NaN, "why": "x"}', b" " * 5000])
def test_a_body_that_is_no_wish_is_refused(site: Site, body: bytes) -> None:
    headers = {**GOOD, "Content-Type": "application/json"}
    assert site.http.post("/api/admin/hold", content=body, headers=headers).status_code == 400
    assert site.untouched


def test_without_a_token_file_nobody_may_change_anything() -> None:
    http = TestClient(create_app(MadeUpSite(nodes=1)))
    answer = http.post("/api/admin/hold", json=HOLD, headers=GOOD)
    assert answer.status_code == 403
    assert "admin_token_file" in answer.text


class TestTokenFile:
    def written(self, tmp_path: Path, text: str, mode: int = 0o600) -> Path:
        file = tmp_path / "tokens"
        file.write_text(text)
        file.chmod(mode)
        return file

    def test_each_line_is_an_admin(self, tmp_path: Path) -> None:
        tokens = read_admin_tokens(self.written(tmp_path, f"# who\nops {TOKEN}\n\nann {TOKEN[::-1]}\n"))
        assert tokens.name_of(f"Bearer {TOKEN}") == "ops"
        assert tokens.name_of(f"bearer {TOKEN[::-1]}") == "ann"

    @pytest.mark.parametrize(
        "text", ["", "# none\n", "ops short\n", f"{TOKEN}\n", f"ops {TOKEN} more\n", f"a {TOKEN}\na {TOKEN}x\n"]
    )
    def test_a_file_that_names_nobody_is_refused_and_never_shown(self, tmp_path: Path, text: str) -> None:
        with pytest.raises(ConfigError, match="admin_token_file") as refusal:
            read_admin_tokens(self.written(tmp_path, text))
        assert TOKEN not in str(refusal.value)

    @pytest.mark.parametrize("mode", [0o644, 0o602])
    def test_a_file_that_anybody_may_read_or_write_is_refused(self, tmp_path: Path, mode: int) -> None:
        with pytest.raises(ConfigError, match="chmod"):
            read_admin_tokens(self.written(tmp_path, f"ops {TOKEN}\n", mode))

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="nowhere"):
            read_admin_tokens(tmp_path / "nowhere")
