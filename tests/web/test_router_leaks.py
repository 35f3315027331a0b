"""What a few hundred requests of all kinds leave behind in the router: no file, no task, no place, no connection."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from slurm_power.llm.request_class import REQUEST_CLASSES
from slurm_power.testing.stub_instance import StubBehaviour, StubInstance
from tests.web.router_site import RouterSite, router_site
from tests.web.test_router import run

SS, LL = REQUEST_CLASSES[0], REQUEST_CLASSES[-1]


def post(body: bytes, *, length: int | None = None) -> bytes:
    """`length`: what the head says, where the body is another."""
    told = len(body) if length is None else length
    return b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (told, body)


def asked(prompt_tokens: int, tokens: int, *, caller: str = "", stream: bool = True) -> bytes:
    body = {"model": "chat", "prompt": [1] * prompt_tokens, "max_tokens": tokens, "stream": stream, "user": caller}
    return post(json.dumps(body).encode())


async def ask(site: RouterSite, request: bytes, *, until: bytes | None = None, patience_s: float = 20.0) -> bytes:
    """Leaves as soon as `until` is there, or patience is at its end; else when the answer is whole."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(site.url.rpartition(":")[2]))
    got = b""
    try:
        writer.write(request)
        async with asyncio.timeout(patience_s):
            while not _whole(got) if until is None else until not in got:
                part = await reader.read(65536)
                if not part:
                    break
                got += part
    except TimeoutError:
        pass
    finally:
        writer.transport.abort()
    return got


def _whole(got: bytes) -> bool:
    head, there, body = got.partition(b"\r\n\r\n")
    if b"content-length: " in head:
        return len(body) >= int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
    return bool(there) and body.endswith(b"0\r\n\r\n")


@dataclass(frozen=True, slots=True)
class Left:
    """Beside the connections that are kept for the next requests, each of them one file at each end."""

    files: int
    tasks: int
    connections: int
    places: tuple[tuple[int, int, int, int], ...]
    waiting: int


def left(site: RouterSite) -> Left:
    streams = site.streams
    here_and_at_the_stub = 2 * streams.kept()
    return Left(
        files=len(list(Path("/proc/self/fd").iterdir())) - here_and_at_the_stub,
        tasks=len(asyncio.all_tasks()) - streams.kept(),
        connections=len(streams._busy),
        places=tuple((one.requests, one.held_tokens, one.prefill_tokens, len(one.unbegun)) for one in site.desk.roster),
        waiting=len(site.desk._places) + len(site.desk._waiting),
    )


async def back_to(site: RouterSite, start: Left) -> None:
    for _ in range(300):
        if left(site) == start:
            break
        await asyncio.sleep(0.02)
    assert left(site) == start


async def stub(**behaviour: float | bool | int) -> StubInstance:
    made = StubInstance(StubBehaviour(**behaviour))  # type: ignore[arg-type]
    await made.start()
    return made


def all_ways(site: RouterSite) -> list[Callable[[int], Coroutine[Any, Any, bytes]]]:
    return [
        lambda n: ask(site, asked(3, 3, caller=f"u{n}")),
        lambda n: ask(site, asked(3, 3, caller=f"u{n}", stream=False)),
        lambda n: ask(site, asked(2000, 3, caller=f"u{n}")),
        lambda n: ask(site, asked(2000, 500), until=b"token"),  # leaves in mid-answer
        lambda n: ask(site, asked(2000, 3), patience_s=0.15),  # leaves before the first token
        lambda n: ask(site, asked(2000, 3), patience_s=0.0),
        lambda n: ask(site, post(b"{")),
        lambda n: ask(site, post(b'{"prompt": "x", "model": "other"}')),
        lambda n: ask(site, post(b" ", length=100_001)),
        lambda n: ask(site, post(b'{"prompt": "x"', length=50), patience_s=0.05),  # leaves in its own request
        lambda n: ask(site, b"GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n"),
    ]


def test_a_few_hundred_requests_of_all_kinds_leave_nothing_open() -> None:
    async def test() -> None:
        async with router_site(max_waiting=8, patience_s=1.0) as site:
            quick, slow = await stub(), await stub(first_token_s=0.25, between_tokens_s=0.01)
            site.add(quick, pool=SS)
            site.add(slow, pool=LL, seats=8)
            draw = random.Random(3)
            ways = all_ways(site)
            await asyncio.gather(*(way(0) for way in ways))
            await asyncio.sleep(0.5)
            start = left(site)
            answers = []
            for lot in range(10):
                wave = (draw.choice(ways)(lot * 30 + number) for number in range(30))
                answers += await asyncio.gather(*wave)
            await back_to(site, start)
            seen = {answer[9:12] for answer in answers if answer}
            assert {b"200", b"400", b"404", b"413", b"429"} <= seen
            assert (quick.running, slow.running) == (0, 0)

    run(test())


@pytest.mark.parametrize("sent", [b"", b'{"prompt": "x"}'], ids=["nothing", "half"])
def test_a_client_that_leaves_in_its_own_request_is_no_error_and_asks_no_instance(
    sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with router_site() as site:
            made = await stub()
            site.add(made)
            start = left(site)
            with caplog.at_level(logging.WARNING):
                await ask(site, post(sent, length=500), patience_s=0.1)
                await back_to(site, start)
            assert (made.answered, caplog.messages) == (0, [])

    run(test())


@pytest.mark.parametrize("sent", [b"", b'{"prompt": "x"}'], ids=["nothing", "half"])
def test_a_client_that_goes_silent_in_its_own_request_is_not_waited_for(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slurm_power.web.router._BODY_S", 0.1)

    async def test() -> None:
        async with router_site() as site:
            start = left(site)
            assert (await ask(site, post(sent, length=500)))[9:12] == b"408"
            await back_to(site, start)

    run(test())
