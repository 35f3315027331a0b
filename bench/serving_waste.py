"""Slots of the cache that are allocated and hold no token, over the lengths of real conversations. No model is needed:
the scheduler and its blocks are the real ones, tokens are made up."""

from __future__ import annotations

import csv
import itertools
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from job_wrappers.serving.kv.block_pool import BlockPool
from job_wrappers.serving.kv.sizing import waste_fraction
from job_wrappers.serving.requests.output import FinishReason
from job_wrappers.serving.requests.params import SamplingParams
from job_wrappers.serving.requests.request import Request
from job_wrappers.serving.scheduling.preemption import PreemptionRule
from job_wrappers.serving.scheduling.scheduler import Limits, Scheduler

TRACE = Path("../shared/data/llm/azure_2023_conversation.csv")
"""Azure's public LLM inference trace of 2023: TIMESTAMP, ContextTokens, GeneratedTokens."""

REQUESTS = 2000
BLOCK_TOKENS = 16
BLOCKS = 8192
MAX_MODEL_LEN = 16384
LIMITS = Limits(max_num_seqs=64, max_batched_tokens=8192, max_waiting=REQUESTS)
EVERY = 10
"""Iterations between two looks."""


def measure() -> dict[str, Any]:
    if not TRACE.exists():
        return {"kv_waste_fraction": None, "kv_waste": {"null_because": f"no trace at {TRACE}"}}
    waste = list(_waste())
    return {
        "kv_waste_fraction": statistics.fmean(waste),
        "kv_waste": {"trace": TRACE.name, "requests": REQUESTS, "largest": max(waste), "block_tokens": BLOCK_TOKENS},
    }


def _waste() -> Iterator[float]:
    """At every few iterations while at least half of what may run runs."""
    ticks = itertools.count()
    pool = BlockPool(BLOCKS)
    rule = PreemptionRule(
        mode="recompute", block_bytes=1, block_tokens=BLOCK_TOKENS, copy_bytes_per_s=1.0, prefill_tokens_per_s=1.0
    )
    scheduler = Scheduler(
        pool=pool,
        host_pool=BlockPool(0),
        block_tokens=BLOCK_TOKENS,
        limits=LIMITS,
        max_model_len=MAX_MODEL_LEN,
        preemption=rule,
        now_s=lambda: float(next(ticks)),
    )
    for request in _requests():
        scheduler.add(request)
    for step in itertools.count():
        plan = scheduler.plan()
        if plan is None:
            return
        if step % EVERY == 0 and len(scheduler.running) > LIMITS.max_num_seqs // 2:
            used = sum(entry.new_tokens for entry in plan.scheduled) + scheduler.used_tokens()
            yield waste_fraction(used, pool.held, BLOCK_TOKENS)
        for sequence in scheduler.advance(plan, dict.fromkeys(plan.samplers, 1)):
            scheduler.finish(sequence, FinishReason.LENGTH)


def _requests() -> Iterator[Request]:
    with TRACE.open(newline="") as lines:
        for number, row in enumerate(itertools.islice(csv.DictReader(lines), REQUESTS)):
            context, generated = int(row["ContextTokens"]), int(row["GeneratedTokens"])
            yield Request(
                request_id=str(number),
                model="",
                prompt_token_ids=tuple(range(number, number + max(1, min(context, MAX_MODEL_LEN - generated - 1)))),
                params=SamplingParams(max_tokens=max(1, generated), ignore_eos=True),
                arrived_at_s=float(number),
            )
