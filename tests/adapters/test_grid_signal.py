"""Grid events from a file and over HTTP: what is asked, and what a broken signal costs."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from slurm_power.adapters.bounded_get import MOST_BYTES
from slurm_power.adapters.grid_signal import GridSignalConfig, open_grid_signal
from slurm_power.errors import ConfigError, Unavailable

EVENTS = [
    {
        "eventName": "peak",
        "intervalPeriod": {"start": "2026-07-01T16:00:00Z", "duration": "PT3H"},
        "intervals": [{"id": 0, "payloads": [{"type": "IMPORT_CAPACITY_LIMIT", "values": [75]}]}],
    }
]


@contextmanager
def answering(status: int, body: bytes, seen: list[str]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization", ""))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/events"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_file_says_what_is_asked_and_its_absence_asks_nothing(tmp_path: Path) -> None:
    file = tmp_path / "events.json"
    signal = open_grid_signal(GridSignalConfig(source=str(file), ramp_s=900.0, ramp_from_watts=100_000.0))
    assert signal.events() == ()
    file.write_text(json.dumps(EVENTS))
    (event,) = signal.events()
    assert (event.name, event.limit_watts, event.duration_s, event.ramp_s) == ("peak", 75_000.0, 10_800.0, 900.0)


@pytest.mark.parametrize("content", ["{", '[{"eventName": "x"}]', "[" * 100_000, " " * (MOST_BYTES + 1)])
def test_a_file_that_cannot_be_read_is_one_line_that_names_it(tmp_path: Path, content: str) -> None:
    file = tmp_path / "events.json"
    file.write_text(content)
    with pytest.raises(Unavailable, match=r"events\.json") as raised:
        open_grid_signal(GridSignalConfig(source=str(file))).events()
    assert "\n" not in str(raised.value)


def test_an_address_is_asked_with_its_token(tmp_path: Path) -> None:
    token, seen = tmp_path / "token", []
    token.write_text("secret\n")
    token.chmod(0o600)
    with answering(200, json.dumps(EVENTS).encode(), seen) as address:
        signal = open_grid_signal(GridSignalConfig(source=address, token_file=token))
        assert [event.name for event in signal.events()] == ["peak"]
        signal.close()
    assert seen == ["Bearer secret"]


@pytest.mark.parametrize(("status", "body"), [(503, b""), (200, b"<html>"), (200, b" " * (MOST_BYTES + 10))])
def test_an_answer_that_is_none_is_unavailable(status: int, body: bytes) -> None:
    with answering(status, body, []) as address:
        signal = open_grid_signal(GridSignalConfig(source=address))
        with pytest.raises(Unavailable, match="grid signal"):
            signal.events()
        signal.close()


def test_nobody_at_the_address_is_unavailable() -> None:
    signal = open_grid_signal(GridSignalConfig(source="http://127.0.0.1:9/events", timeout_s=1.0))
    with pytest.raises(Unavailable, match="grid signal"):
        signal.events()
    signal.close()


@pytest.mark.parametrize("host", ["vtn.example.org", "127.0.0.1.example.org", "localhost.example.org"])
def test_a_token_goes_over_https_only(host: str) -> None:
    with pytest.raises(ConfigError, match="https"):
        GridSignalConfig(source=f"http://{host}/events")
