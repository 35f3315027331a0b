"""Measures one serving instance over HTTP: seconds and watts of an iteration, seconds of a prompt."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from slurm_power.errors import Unavailable
from slurm_power.llm.profile_fit import DecodePoint, PromptPoint
from slurm_power.ports.serving_instance import ServingInstance

_VOCABULARY_FROM, _VOCABULARY_TO = 10, 200
"""Tokens that every vocabulary has; which ones they are does not matter, only that no two prompts begin alike."""

_REQUEST_S = 600.0


@dataclass(slots=True)
class _Batch:
    """Streams that run beside each other."""

    size: int
    begun: int = 0
    all_begun: asyncio.Event = field(default_factory=asyncio.Event)
    first_ended: asyncio.Event = field(default_factory=asyncio.Event)
    tokens: int = 0
    """Of all streams, since all have begun."""


class ServingProbe:
    def __init__(self, url: str, instance: ServingInstance, *, seed: int = 0) -> None:
        limits = httpx.Limits(max_connections=None)
        self._client = httpx.AsyncClient(base_url=url, timeout=_REQUEST_S, trust_env=False, limits=limits)
        self._instance = instance
        self._draw = random.Random(seed)

    async def close(self) -> None:
        await self._client.aclose()

    async def decode(self, *, clock_mhz: int, batch: int, context_tokens: int, new_tokens: int) -> DecodePoint:
        """Raise Unavailable when the instance does not run so many beside each other."""
        shared = _Batch(batch)
        streams = [asyncio.ensure_future(self._follow(shared, context_tokens, new_tokens)) for _ in range(batch)]
        try:
            await _first_of(shared.all_begun, streams)
            began_s, joules = time.monotonic(), await self._joules()
            shared.tokens = 0
            began_s = time.monotonic()
            await _first_of(shared.first_ended, streams)
            took_s, tokens = time.monotonic() - began_s, shared.tokens
            after = await self._joules()
        finally:
            for stream in streams:
                stream.cancel()
            await asyncio.gather(*streams, return_exceptions=True)
        if tokens < batch:
            raise Unavailable(f"batch {batch}: answers ended before all had begun; ask for more new tokens")
        return DecodePoint(
            clock_mhz=clock_mhz,
            batch=batch,
            context_tokens=batch * (context_tokens + new_tokens // 2),
            iteration_s=took_s * batch / tokens,
            watts=None if joules is None or after is None or took_s <= 0 else (after - joules) / took_s,
        )

    async def prompt(self, tokens: int) -> PromptPoint:
        joules, began_s = await self._joules(), time.monotonic()
        took_s = began_s
        async for _ in self._events(tokens, 1):
            took_s = time.monotonic() - began_s
            break
        after, whole_s = await self._joules(), time.monotonic() - began_s
        watts = None if joules is None or after is None else (after - joules) / whole_s
        return PromptPoint(tokens, took_s, watts)

    async def idle_watts(self, *, for_s: float) -> float | None:
        before, began_s = await self._joules(), time.monotonic()
        await asyncio.sleep(for_s)
        after = await self._joules()
        return None if before is None or after is None else (after - before) / (time.monotonic() - began_s)

    async def _joules(self) -> float | None:
        return (await self._instance.status()).energy_joules

    async def _follow(self, shared: _Batch, context_tokens: int, new_tokens: int) -> None:
        first = True
        try:
            async for _ in self._events(context_tokens, new_tokens):
                shared.tokens += 1
                if first:
                    first = False
                    shared.begun += 1
                    if shared.begun == shared.size:
                        shared.all_begun.set()
        finally:
            shared.first_ended.set()

    async def _events(self, prompt_tokens: int, new_tokens: int) -> AsyncIterator[str]:
        """One for each token; raise Unavailable when it is refused."""
        prompt = [self._draw.randrange(_VOCABULARY_FROM, _VOCABULARY_TO) for _ in range(prompt_tokens)]
        body = {"prompt": prompt, "max_tokens": new_tokens, "ignore_eos": True, "stream": True, "temperature": 0}
        try:
            async with self._client.stream("POST", "/v1/completions", json=body) as answer:
                if answer.status_code != 200:
                    words = json.loads(await answer.aread())["error"]["message"]
                    raise Unavailable(f"the instance refuses: {str(words)[:300]}")
                async for line in answer.aiter_lines():
                    if line.startswith("data: {"):
                        yield line
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as cause:
            raise Unavailable(f"the instance does not answer: {cause}") from cause


async def _first_of(event: asyncio.Event, streams: Sequence[asyncio.Future[None]]) -> None:
    """The event, or what a stream failed with."""
    waiting: asyncio.Future[Any] = asyncio.ensure_future(event.wait())
    try:
        pending: set[asyncio.Future[Any]] = {waiting, *streams}
        while not event.is_set():
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                if one is not waiting and one.exception() is not None:
                    raise one.exception() or Unavailable("a stream ended")
            if not pending:
                break
    finally:
        waiting.cancel()
