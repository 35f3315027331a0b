"""Passing requests on: connections are used again, broken answers are told, a slow reader slows the writer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from slurm_power.adapters.serving_stream_http import HttpInstanceStreams
from slurm_power.errors import ConfigError, Unavailable
from slurm_power.testing.stub_instance import StubBehaviour, StubInstance

BODY = b'{"prompt": [1], "max_tokens": 3, "stream": true}'


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60.0))


async def whole(streams: HttpInstanceStreams, url: str) -> bytes:
    answer = await streams.send(url, "/v1/completions", BODY)
    parts = []
    while (part := await answer.part()) is not None:
        parts.append(part)
    return b"".join(parts)


class Raw:
    """A server that writes exactly what it is told."""

    def __init__(self, answer: bytes, *, closes: bool = True) -> None:
        self._answer, self._closes, self.connections = answer, closes, 0

    async def start(self) -> str:
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(self._answer)
        if self._closes:
            writer.close()
        else:
            await reader.read()


def test_one_connection_serves_many_requests() -> None:
    async def test() -> None:
        stub, streams = StubInstance(), HttpInstanceStreams()
        await stub.start()
        for _ in range(5):
            assert (await whole(streams, stub.url)).count(b"token") == 3
        assert streams.kept() == 1
        streams.close()

    run(test())


def test_a_kept_connection_that_the_instance_closed_is_replaced_unseen() -> None:
    async def test() -> None:
        stub, streams = StubInstance(), HttpInstanceStreams()
        await stub.start()
        await whole(streams, stub.url)
        for writer in list(stub._open):
            writer.close()
        await asyncio.sleep(0)
        assert (await whole(streams, stub.url)).count(b"token") == 3

    run(test())


def test_whoever_leaves_before_the_answer_begins_leaves_no_connection_and_no_work_at_the_instance() -> None:
    async def test() -> None:
        stub, streams = StubInstance(StubBehaviour(first_token_s=0.3)), HttpInstanceStreams()
        await stub.start()
        await whole(streams, stub.url)  # the next one goes over a kept connection, the last over a new one
        for _ in range(2):
            asking = asyncio.ensure_future(streams.send(stub.url, "/v1/completions", BODY))
            while not stub.running:
                await asyncio.sleep(0.01)
            asking.cancel()
            await asyncio.wait({asking})
            await until(lambda: not stub._open)
            assert (len(streams._busy), streams.kept()) == (0, 0)
        streams.close()

    run(test())


async def until(there: Callable[[], bool]) -> None:
    async with asyncio.timeout(10.0):
        while not there():
            await asyncio.sleep(0.01)


def test_what_is_left_unread_does_not_return_to_the_kept_ones() -> None:
    async def test() -> None:
        stub, streams = StubInstance(StubBehaviour(between_tokens_s=10.0)), HttpInstanceStreams()
        await stub.start()
        answer = await streams.send(stub.url, "/v1/completions", BODY)
        assert await answer.part()
        answer.close()
        answer.close()
        assert streams.kept() == 0

    run(test())


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"SSH-2.0-OpenSSH\r\n", id="no-http"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", id="cut"),
        pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel", id="cut-chunk"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000, id="head-without-end"),
        pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", id="no-chunk"),
    ],
)
def test_a_broken_answer_is_told_and_not_waited_for(answer: bytes) -> None:
    async def test() -> None:
        url = await Raw(answer).start()
        with pytest.raises(Unavailable):
            await whole(HttpInstanceStreams(), url)

    run(test())


def test_silence_has_an_end() -> None:
    async def test() -> None:
        url = await Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", closes=False).start()
        with pytest.raises(Unavailable, match="silent"):
            await whole(HttpInstanceStreams(silence_s=0.05), url)

    run(test())


def test_a_reader_that_does_not_read_holds_little() -> None:
    async def test() -> None:
        body = b"x" * 20_000_000
        url = await Raw(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body, closes=False).start()
        answer = await HttpInstanceStreams().send(url, "/", b"")
        await asyncio.sleep(0.3)
        assert answer._held_bytes < 1_000_000
        total = 0
        while (part := await answer.part()) is not None:
            total += len(part)
        assert total == len(body)

    run(test())


def test_a_url_that_is_none_is_named() -> None:
    async def test() -> None:
        with pytest.raises(ConfigError, match="must be http"):
            await HttpInstanceStreams().send("file:///etc/passwd", "/", b"")

    run(test())
