"""Clients of a running server over real HTTP: a steady number of streams, or arrivals at a rate whatever happens."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import httpx

from bench.serving_model import VOCABULARY

LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=256)
TIMEOUT = httpx.Timeout(300.0, connect=30.0)


@dataclass(slots=True)
class Seen:
    """What the clients saw."""

    outcomes: Counter[str] = field(default_factory=Counter)
    """finished, refused (429), or what went wrong."""

    token_times_s: list[float] = field(default_factory=list)
    slowest_s: float = 0.0

    @property
    def failed(self) -> int:
        return sum(count for outcome, count in self.outcomes.items() if outcome not in ("finished", "refused"))

    def tokens_per_s(self, begin_s: float, end_s: float) -> float:
        return sum(begin_s <= at_s < end_s for at_s in self.token_times_s) / (end_s - begin_s)


async def one(
    client: httpx.AsyncClient, seen: Seen, dice: random.Random, *, prompt_tokens: int, new_tokens: int
) -> None:
    """A stream of exactly `new_tokens`; anything else is a failure."""
    body = {
        "prompt": [dice.randrange(16, VOCABULARY) for _ in range(prompt_tokens)],
        "max_tokens": new_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    began_s = time.monotonic()
    try:
        async with client.stream("POST", "/v1/completions", json=body) as answer:
            outcome = await _listen(answer, seen, new_tokens)
    except httpx.HTTPError as error:
        outcome = type(error).__name__
    seen.outcomes[outcome] += 1
    if outcome == "finished":
        seen.slowest_s = max(seen.slowest_s, time.monotonic() - began_s)


async def _listen(answer: httpx.Response, seen: Seen, new_tokens: int) -> str:
    if answer.status_code != 200:
        return "refused" if answer.status_code == 429 else f"HTTP {answer.status_code}"
    outcome = "ended early"
    async for line in answer.aiter_lines():
        if line.startswith("data: {"):
            outcome = _hear(json.loads(line[6:]), seen, new_tokens) or outcome
    return outcome


def _hear(event: dict[str, object], seen: Seen, new_tokens: int) -> str | None:
    if "error" in event:
        return f"error: {event['error']}"
    usage = event.get("usage")
    if isinstance(usage, dict):
        return "finished" if usage["completion_tokens"] == new_tokens else "ended early"
    seen.token_times_s.append(time.monotonic())
    return None


async def steady(
    url: str, seen: Seen, meanwhile: Callable[[], Awaitable[None]], *, streams: int, prompt_tokens: int, new_tokens: int
) -> None:
    """`streams` clients, each with the next request as soon as the last one has ended, until `meanwhile` is over."""
    done = asyncio.Event()
    async with httpx.AsyncClient(base_url=url, limits=LIMITS, timeout=TIMEOUT) as client:

        async def keep_asking(number: int) -> None:
            dice = random.Random(number)
            while not done.is_set():
                await one(client, seen, dice, prompt_tokens=prompt_tokens, new_tokens=new_tokens)

        clients = [asyncio.create_task(keep_asking(number)) for number in range(streams)]
        try:
            await meanwhile()
        finally:
            done.set()
            await asyncio.gather(*clients)


async def arriving(
    url: str, seen: Seen, *, requests_per_s: float, duration_s: float, prompt_tokens: int, new_tokens: int
) -> None:
    """Poisson arrivals that wait for nobody; returns when all have their answer."""
    dice = random.Random(0)
    tasks: list[asyncio.Task[None]] = []
    async with httpx.AsyncClient(base_url=url, limits=LIMITS, timeout=TIMEOUT) as client:
        began_s = time.monotonic()
        next_s = 0.0
        while (next_s := next_s + dice.expovariate(requests_per_s)) < duration_s:
            await asyncio.sleep(max(0.0, began_s + next_s - time.monotonic()))
            ask = one(client, seen, dice, prompt_tokens=prompt_tokens, new_tokens=new_tokens)
            tasks.append(asyncio.create_task(ask))
        await asyncio.gather(*tasks)
