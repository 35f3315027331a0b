"""Under steady load: halve and restore the batch, and switch large -> small -> large. What the clients notice."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench.serving_load import Seen, steady
from bench.serving_server import Server, emulated_gpu, serving

PHASE_S, SETTLE_S = 10.0, 2.0
STREAMS = 16
REQUEST = {"prompt_tokens": 64, "new_tokens": 64}
OPTIONS = ("--max-num-seqs", str(STREAMS), "--memory-gib", "3", "--max-model-len", "2048", "--swap-gib", "0.25")


def measure(large: Path, small: Path) -> dict[str, Any]:
    changes: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("max_num_seqs halved", "limits", {"max_num_seqs": STREAMS // 2}),
        ("max_num_seqs restored", "limits", {"max_num_seqs": STREAMS}),
        ("small model", "model", {"model": small.name}),
        ("large model", "model", {"model": large.name}),
    )
    seen = Seen()
    phases: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory(prefix="slurm-power-bench-") as name,
        emulated_gpu(Path(name)) as gpu,
        serving(large, small, options=OPTIONS, more=gpu) as server,
    ):

        async def steer() -> None:
            await asyncio.sleep(SETTLE_S)
            phases.append(await _phase("as started", server, seen, server.status))
            for what, action, body in changes:
                phases.append(await _phase(what, server, seen, partial(server.steer, action, body)))

        asyncio.run(steady(server.url, seen, steer, streams=STREAMS, **REQUEST))
    by_name = {phase["what"]: phase for phase in phases}
    switches = [by_name["small model"]["switch_s"], by_name["large model"]["switch_s"]]
    return {
        "batch_change_effect_s": max(
            by_name[name]["effect_s"] for name in ("max_num_seqs halved", "max_num_seqs restored")
        ),
        "model_switch_s": max(switches),
        "failed_requests_during_switch": seen.failed,
        "steering": {"phases": phases, "outcomes": dict(seen.outcomes), "streams": STREAMS},
    }


async def _phase(what: str, server: Server, seen: Seen, change: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Tokens/s once the change has settled. `asked_s`: how long the steering call took."""
    asked_s = time.monotonic()
    await asyncio.to_thread(change)
    answered_s = time.monotonic()
    await asyncio.sleep(SETTLE_S)
    settled_s, settled = time.monotonic(), await asyncio.to_thread(server.status)
    await asyncio.sleep(PHASE_S)
    ended_s, status = time.monotonic(), await asyncio.to_thread(server.status)
    joules = [each["energy_joules_total"] for each in (settled, status)]
    return {
        "what": what,
        "call_s": answered_s - asked_s,
        "effect_s": (status["last_steered"] or {}).get("effect_s"),
        "switch_s": status["switch_s"],
        "tokens_per_s": seen.tokens_per_s(settled_s, ended_s),
        "told_tokens_per_s": status["tokens_per_s"],
        "emulated_watts": None if None in joules else (joules[1] - joules[0]) / (ended_s - settled_s),
        "told_emulated_watts": status["watts"],
        "running": sum(one["running"] for one in status["classes"].values()),
    }
