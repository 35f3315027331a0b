"""A serving instance without a model: OpenAI's answers by the clock, and the steering API. For tests and benches.

It answers `token ` as often as asked for. What it does wrong can be set: refuse, die in mid-answer, be silent.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class StubBehaviour:
    first_token_s: float = 0.0
    between_tokens_s: float = 0.0
    refuse_status: int | None = None
    break_after_tokens: int | None = None
    silent: bool = False
    seats: int = 128


@dataclass(slots=True)
class StubInstance:
    """`await start()`, then `url`."""

    behaviour: StubBehaviour = field(default_factory=StubBehaviour)
    token: str = "stub-token"
    answered: int = 0
    running: int = 0
    most_running: int = 0
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keep_bodies: bool = False
    sm_clock_mhz: int | None = None
    max_num_seqs: int = 128
    max_batched_tokens: int = 2048
    active: str = "large"
    draining: bool = False
    steered: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    generated_tokens: int = 0
    url: str = ""
    port: int = 0
    _server: asyncio.Server | None = None
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", port, limit=8 * 1024 * 1024)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    async def stop(self) -> None:
        """As kill -9 would: connections end where they are."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._open):
            writer.transport.abort()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                _, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
                length = _header(head, b"content-length")
                body = await reader.readexactly(int(length or 0))
                if path.startswith("/admin/"):
                    self._steer(writer, head, path, json.loads(body or b"{}"))
                else:
                    await self._generate(writer, path, json.loads(body or b"{}"))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, ValueError, asyncio.CancelledError):
            pass  # the other side left, or the test has ended
        finally:
            self._open.discard(writer)
            writer.close()

    def _steer(self, writer: asyncio.StreamWriter, head: bytes, path: str, body: dict[str, Any]) -> None:
        if _header(head, b"authorization") != b"Bearer " + self.token.encode():
            _whole(writer, {"error": {"message": "a token"}}, 403)
            return
        action = path.removeprefix("/admin/")
        if action != "status":
            self.steered.append((action, body))
        match action:
            case "clock":
                self.sm_clock_mhz = body["sm_clock_mhz"]
            case "limits":
                self.max_num_seqs = body.get("max_num_seqs", self.max_num_seqs)
                self.max_batched_tokens = body.get("max_batched_tokens", self.max_batched_tokens)
            case "model":
                self.active = body["model"]
            case "drain":
                self.draining = True
        _whole(writer, self.status())

    def status(self) -> dict[str, Any]:
        nothing = {"p50_s": None, "p99_s": None}
        model = {"name": self.active, "state": "active", "running": self.running, "waiting": 0}
        blocks = {"blocks_total": 1000, "blocks_held": 0, "blocks_idle": 0, "used_tokens": 0, "waste_fraction": 0.0}
        return {
            "public_name": "chat", "active": self.active, "draining": self.draining, "models": [model | blocks],
            "classes": {"interactive": {"running": self.running, "waiting": 0, "least_slack_s": None,
                                        "first_token": nothing, "between_tokens": nothing, "whole": nothing}},
            "limits": {"max_num_seqs": self.max_num_seqs, "max_batched_tokens": self.max_batched_tokens,
                       "max_waiting": 1024},
            "sm_clock_mhz": self.sm_clock_mhz, "tokens_per_s": 0.0, "joules_per_token": None, "watts": 300.0,
            "prompt_tokens_total": 0, "generated_tokens_total": self.generated_tokens, "preemptions_total": 0,
            "finished_total": {}, "energy_joules_total": None, "last_steered": None, "switch_s": None, "failure": None,
        }  # fmt: skip

    async def _generate(self, writer: asyncio.StreamWriter, path: str, body: dict[str, Any]) -> None:
        own = self.behaviour
        if self.keep_bodies:
            self.bodies.append(body)
        if own.refuse_status is not None or self.draining:
            _whole(writer, {"error": {"message": "not now"}}, own.refuse_status or 503)
            return
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            if own.silent:
                await asyncio.sleep(3600.0)
            if own.first_token_s:
                await asyncio.sleep(own.first_token_s)
            tokens = int(body.get("max_tokens") or 16)
            if body.get("stream"):
                await self._stream(writer, tokens, chat="chat" in path)
            else:
                await asyncio.sleep(own.between_tokens_s * (tokens - 1))
                self._breaks(writer, tokens)
                choice = {"index": 0, "text": "token " * tokens, "finish_reason": "length"}
                _whole(writer, {"object": "text_completion", "choices": [choice], "usage": _usage(body, tokens)})
            self.answered += 1
            self.generated_tokens += tokens
        finally:
            self.running -= 1

    async def _stream(self, writer: asyncio.StreamWriter, tokens: int, *, chat: bool) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        shown = {"delta": {"content": "token "}} if chat else {"text": "token "}
        event = b"data: " + json.dumps({"choices": [{"index": 0, **shown}]}).encode() + b"\n\n"
        for number in range(tokens):
            if self.behaviour.break_after_tokens is not None:
                self._breaks(writer, number)
            writer.write((head if not number else b"") + _chunk(event))
            if self.behaviour.between_tokens_s:
                await asyncio.sleep(self.behaviour.between_tokens_s)
            await writer.drain()
        writer.write(_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    def _breaks(self, writer: asyncio.StreamWriter, tokens: int) -> None:
        limit = self.behaviour.break_after_tokens
        if limit is not None and tokens >= limit:
            writer.transport.abort()
            raise ConnectionError("as told")


def _usage(body: dict[str, Any], tokens: int) -> dict[str, Any]:
    prompt = body.get("prompt")
    prompt_tokens = len(prompt) if isinstance(prompt, list) else 1
    return {"prompt_tokens": prompt_tokens, "completion_tokens": tokens, "energy_joules": None}


def _header(head: bytes, name: bytes) -> bytes | None:
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            return value.strip()
    return None


def _whole(writer: asyncio.StreamWriter, content: dict[str, Any], status: int = 200) -> None:
    body = json.dumps(content).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)


def _chunk(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content)


async def _main(port: int, first_token_s: float, between_tokens_s: float) -> None:
    stub = StubInstance(StubBehaviour(first_token_s=first_token_s, between_tokens_s=between_tokens_s))
    await stub.start(port)
    print(stub.url, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
