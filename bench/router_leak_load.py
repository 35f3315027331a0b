"""The clients of `bench.router_leak`: most read a short stream; some leave, err or come all at once."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from bench.router_leak_site import KEY, MOST_BODY_BYTES

CLIENTS, BURST = 32, 80
TOKENS = 3
SMALL, MEDIUM, LARGE = 200, 600, 2000
"""Tokens of a prompt: for the instance that is quick, that breaks off, that is slow."""

SHARES = {
    "stream": 0.80, "chat": 0.03, "whole": 0.03, "slow": 0.02, "long body": 0.01, "breaks off": 0.01,
    "leaves in mid-answer": 0.03, "leaves before it": 0.03, "leaves in its request": 0.01, "bad": 0.03,
}  # fmt: skip


class Load:
    def __init__(self, port: int, *, seed: int = 5) -> None:
        self._port, self._draw = port, random.Random(seed)
        self._number = 0
        self.seen: Counter[str] = Counter()

    async def batch(self, requests: int) -> None:
        """The last of them all at once, which is more than the slow instance has seats and places to wait for."""
        burst = min(BURST, requests // 4)
        ways = iter(self._draw.choices(list(SHARES), list(SHARES.values()), k=requests - burst))
        await asyncio.gather(*(self._client(ways) for _ in range(CLIENTS)))
        await asyncio.gather(*(self._one(Connection(self._port), "slow") for _ in range(burst)))

    async def _client(self, ways: Iterator[str]) -> None:
        """Keeps its connection for as long as it may."""
        connection = Connection(self._port)
        for way in ways:
            await self._one(connection, way)
        connection.hang_up()

    async def _one(self, connection: Connection, way: str) -> None:
        self._number += 1
        self.seen[way] += 1
        answer = await _ways(f"caller-{self._number}")[way](connection)
        self.seen[answer[9:12].decode() or "no answer"] += 1
        if way == "slow" or way == "stream":
            return
        connection.hang_up()


Way = Callable[["Connection"], Coroutine[Any, Any, bytes]]


def _ways(caller: str) -> dict[str, Way]:
    return {
        "stream": lambda one: one.ask(_post(_body(SMALL, caller))),
        "chat": lambda one: one.ask(_post(_chat(caller), path="/v1/chat/completions")),
        "whole": lambda one: one.ask(_post(_body(SMALL, caller, stream=False))),
        "slow": lambda one: one.ask(_post(_body(LARGE, caller))),
        "long body": lambda one: one.ask(_post(_body(40_000, caller))),
        "breaks off": lambda one: one.ask(_post(_body(MEDIUM, caller))),
        "leaves in mid-answer": lambda one: one.ask(_post(_body(LARGE, caller, tokens=500)), until=b"data: "),
        "leaves before it": lambda one: one.ask(_post(_body(LARGE, caller)), patience_s=0.15),
        "leaves in its request": lambda one: one.ask(_post(b'{"prompt": "x"', length=500), patience_s=0.05),
        "bad": lambda one: one.ask(_BAD[int(caller.rpartition("-")[2]) % len(_BAD)]),
    }


class Connection:
    """Opened when it is needed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes, *, until: bytes | None = None, patience_s: float = 60.0) -> bytes:
        """Reads the whole answer, or until `until` is there, or patience ends; then it leaves."""
        if self._open is None:
            self._open = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._open
        writer.write(request)
        got = b""
        try:
            async with asyncio.timeout(patience_s):
                while not (_is_whole(got) if until is None else until in got):
                    part = await reader.read(65536)
                    if not part:
                        self.hang_up()
                        break
                    got += part
        except (TimeoutError, ConnectionError):
            self.hang_up()
        if until is not None:
            self.hang_up()
        return got

    def hang_up(self) -> None:
        if self._open is not None:
            self._open[1].transport.abort()
            self._open = None


def _is_whole(got: bytes) -> bool:
    head, there, body = got.partition(b"\r\n\r\n")
    if not there:
        return False
    if b"content-length: " in head:
        return len(body) >= int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
    return body.endswith(b"0\r\n\r\n")


def _body(prompt_tokens: int, caller: str, *, tokens: int = TOKENS, stream: bool = True) -> bytes:
    asked = {"model": "chat", "prompt": [1] * prompt_tokens, "max_tokens": tokens, "stream": stream, "user": caller}
    return json.dumps(asked).encode()


def _chat(caller: str) -> bytes:
    messages = [{"role": "user", "content": "hello " * 20}]
    asked = {"model": "chat", "messages": messages, "max_tokens": TOKENS, "stream": True, "user": caller}
    return json.dumps(asked).encode()


def _post(body: bytes, *, length: int | None = None, path: str = "/v1/completions", key: str = KEY) -> bytes:
    """`length`: what the head says, where the body is another."""
    told = len(body) if length is None else length
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: {told}\r\n\r\n"
    return head.encode() + body


_BAD = (
    _post(b"{"),
    _post(b'{"prompt": []}'),
    _post(b'{"prompt": "x", "model": "other"}'),
    _post(b'{"prompt": "x"}', key="wrong"),
    _post(b" ", length=MOST_BODY_BYTES + 1),
    _post(b" " * (MOST_BODY_BYTES + 1)),
    b"GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n",
    b"no HTTP at all\r\n\r\n",
)
