"""Sends a benchmark's requests to a server, each when its time has come, and notes what comes back when."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from job_wrappers.serving.errors import RankLost
from job_wrappers.serving.launch.bench_asks import Ask

_TIMEOUT = httpx.Timeout(600.0, connect=30.0)
_TOKENS = (16, 256)
"""Of made-up prompts: in every vocabulary, and no special ones in those we know."""

FINISHED, REFUSED = "finished", "refused"


@dataclass(slots=True, kw_only=True)
class Heard:
    """Times are after the begin."""

    ask: Ask
    sent_s: float
    outcome: str = ""
    """finished, refused (429 and 503), or what went wrong."""

    chunk_times_s: list[float] = field(default_factory=list)
    completion_tokens: int = 0
    energy_joules: float | None = None


@dataclass(frozen=True, slots=True)
class Target:
    url: str
    model: str
    max_model_len: int


def find_target(url: str) -> Target:
    """The active model. Raise RankLost when there is no server."""
    try:
        answer = httpx.get(f"{url}/v1/models", timeout=30.0)
        answer.raise_for_status()
        first = answer.json()["data"][0]
        return Target(url, str(first["id"]), int(first["max_model_len"]))
    except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError) as cause:
        raise RankLost(f"{url} is no server that can be measured: {cause or type(cause).__name__}") from cause


def read_joules(url: str) -> float | None:
    """The server's energy counter, idle time included; None: it has none."""
    try:
        text = httpx.get(f"{url}/metrics", timeout=30.0).text
    except httpx.HTTPError:
        return None
    for line in text.splitlines():
        if line.startswith("slurm_power_energy_joules_total{"):
            return float(line.rsplit(" ", 1)[1])
    return None


async def send_all(
    target: Target,
    asks: Sequence[Ask],
    *,
    most_at_once: int | None,
    priority: str,
    seed: int,
    on_done: Callable[[Heard], None],
) -> list[Heard]:
    """Arrivals wait for nobody, unless only `most_at_once` may run: then each waits for a place."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=256)
    places = asyncio.Semaphore(most_at_once or len(asks))
    began_s = time.monotonic()
    async with httpx.AsyncClient(base_url=target.url, limits=limits, timeout=_TIMEOUT) as client:

        async def one(number: int, ask: Ask) -> Heard:
            await asyncio.sleep(began_s + ask.at_s - time.monotonic())
            body = _body(target, ask, random.Random(f"{seed}-{number}"), priority)
            async with places:
                heard = await _send(client, ask, body, began_s)
            on_done(heard)
            return heard

        return list(await asyncio.gather(*(one(number, ask) for number, ask in enumerate(asks))))


def _body(target: Target, ask: Ask, dice: random.Random, priority: str) -> dict[str, Any]:
    return {
        "model": target.model,
        "prompt": [dice.randrange(*_TOKENS) for _ in range(ask.prompt_tokens)],
        "max_tokens": ask.new_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "priority": priority,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def _send(client: httpx.AsyncClient, ask: Ask, body: Mapping[str, Any], began_s: float) -> Heard:
    heard = Heard(ask=ask, sent_s=time.monotonic() - began_s)
    try:
        async with client.stream("POST", "/v1/completions", json=body) as answer:
            if answer.status_code != 200:
                heard.outcome = REFUSED if answer.status_code in (429, 503) else f"HTTP {answer.status_code}"
                return heard
            async for line in answer.aiter_lines():
                if line.startswith("data: {"):
                    _hear(heard, json.loads(line[len("data: ") :]), time.monotonic() - began_s)
    except (httpx.HTTPError, ValueError) as error:
        heard.outcome = type(error).__name__
    heard.outcome = heard.outcome or "ended early"
    return heard


def _hear(heard: Heard, event: Mapping[str, Any], now_s: float) -> None:
    if "error" in event:
        heard.outcome = f"error: {event['error'].get('message', '')}"[:100]
        return
    if event.get("choices"):
        heard.chunk_times_s.append(now_s)
    usage = event.get("usage")
    if usage:
        heard.completion_tokens = usage["completion_tokens"]
        heard.energy_joules = usage.get("energy_joules")
        heard.outcome = heard.outcome or FINISHED
