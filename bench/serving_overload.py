"""Ten times what the server can do, for a minute: it refuses, finishes what it accepted, and does not grow."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from bench.serving_load import Seen, arriving, steady
from bench.serving_server import serving

TIMES = 10.0
DURATION_S = 60.0
WARM_UP_S, LOOK_S = 5.0, 10.0
STREAMS = 32
MAX_WAITING = 64
REQUEST = {"prompt_tokens": 128, "new_tokens": 64}


def measure(folder: Path) -> dict[str, Any]:
    options = (
        "--max-waiting",
        str(MAX_WAITING),
        "--max-num-seqs",
        str(STREAMS),
        "--memory-gib",
        "2",
        "--max-model-len",
        "2048",
    )
    with serving(folder, options=options) as server:
        usual = Seen()

        async def look() -> None:
            await asyncio.sleep(WARM_UP_S)
            before = usual.outcomes["finished"]
            await asyncio.sleep(LOOK_S)
            rates.append((usual.outcomes["finished"] - before) / LOOK_S)

        rates: list[float] = []
        asyncio.run(steady(server.url, usual, look, streams=STREAMS, **REQUEST))
        before_bytes = server.rss_bytes()
        seen, waiting = Seen(), [0]

        async def overload() -> None:
            watch = asyncio.create_task(_watch())
            rate = TIMES * max(rates[0], 0.5)
            await arriving(server.url, seen, requests_per_s=rate, duration_s=DURATION_S, **REQUEST)
            watch.cancel()

        async def _watch() -> None:
            while True:
                status = await asyncio.to_thread(server.status)
                waiting.append(sum(one["waiting"] for one in status["classes"].values()))
                await asyncio.sleep(1.0)

        asyncio.run(overload())
        return {
            "sustainable_requests_per_s": rates[0],
            "offered_times": TIMES,
            "duration_s": DURATION_S,
            "outcomes": dict(seen.outcomes),
            "failed_requests": seen.failed,
            "most_waiting": max(waiting),
            "max_waiting": MAX_WAITING,
            "slowest_accepted_s": seen.slowest_s,
            "rss_bytes_before": before_bytes,
            "rss_bytes_after": server.rss_bytes(),
            "healthy_after": server.status()["failure"] is None,
        }
