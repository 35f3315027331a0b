"""The event stream over real sockets: it lives, it ends with the daemon, and a reader who stops reading is let go."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from slurm_power.testing.processes import wait_for
from slurm_power.web import stream
from slurm_power.web.broadcast import Broadcast, LivePart
from tests.web.made_up_site import MadeUpSite
from tests.web.served import Served, served


@pytest.fixture
def site() -> Iterator[Served]:
    with served(MadeUpSite(nodes=2, wall_s=time.time)) as running:
        yield running


def test_a_reader_gets_every_part_and_then_news(site: Served) -> None:
    seen: list[str] = []
    with httpx.stream("GET", f"{site.url}/api/stream", timeout=20, trust_env=False) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        for line in answer.iter_lines():
            if line.startswith("event: "):
                seen.append(line.removeprefix("event: "))
            if seen.count("now") == 2:
                break
    assert {"now", "gpus", "gpu_names", "outlook", "trail", "jobs", "feed", "bill"} <= set(seen)


def test_a_stream_ends_when_the_daemon_does(site: Served) -> None:
    with httpx.stream("GET", f"{site.url}/api/stream", timeout=20, trust_env=False) as answer:
        lines = answer.iter_lines()
        next(lines)
        site.broadcast.close()
        assert [line for line in lines if line.startswith("event: never")] == []


def test_a_browser_that_goes_is_forgotten(site: Served) -> None:
    with httpx.stream("GET", f"{site.url}/api/stream", timeout=20, trust_env=False) as answer:
        lines = answer.iter_lines()
        next(lines)
        assert site.broadcast.clients == 1
    assert wait_for(lambda: site.broadcast.clients == 0, timeout_s=20)


def test_a_reader_who_stops_reading_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "SEND_TIMEOUT_S", 0.5)
    count = iter(range(10**9))
    flood = Broadcast({"flood": LivePart(lambda: f"{next(count)}{'x' * 1_000_000}", 0.0)}, period_s=0.01)
    with served(MadeUpSite(nodes=1), broadcast=flood) as running:
        where = urlsplit(running.url)
        with socket.create_connection((where.hostname, where.port)) as lazy:
            lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            lazy.sendall(b"GET /api/stream HTTP/1.1\r\nHost: x\r\n\r\n")
            assert wait_for(lambda: flood.clients == 1, timeout_s=20)
            assert wait_for(lambda: flood.clients == 0, timeout_s=20), "it still holds a place"
            time.sleep(0.1)
            encoded = flood.encodings
            time.sleep(0.2)
            assert flood.encodings == encoded, "nobody is encoded for"
