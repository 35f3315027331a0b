"""Ten minutes of a real trace, scaled down, through the router of a real Slurm cluster with emulated GPUs and tiny
models: everything off (four instances, as they are), then all layers on. `python -m bench.llm_live`; needs root.
"""

from __future__ import annotations

import asyncio
import csv
import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from slurm_power.llm.request_class import DEFAULT_SLO, Size, Slo, prompt_size
from slurm_power.testing.cluster import ClusterSettings
from slurm_power.testing.cluster.fixtures import temporary_cluster
from slurm_power.testing.nvml_emulator.emulator import EmulatedNode
from slurm_power.testing.nvml_emulator.node_power import OFF_WATTS
from tests.cluster.pool_site import Asked, PoolSite, pool_site, replay

TRACE = Path("../shared/data/llm/azure_2023_conversation.csv")
OUTPUT = Path("build/bench/llm_live.json")
PROMPT_SHARE, OUTPUT_SHARE, MOST_TOKENS = 0.25, 0.125, 900
"""Of the trace's tokens: the model is tiny, and reads no more than 1024."""

SLO = Slo(ttft_s={size: 4.0 * due_s for size, due_s in DEFAULT_SLO.ttft_s.items()}, tbt_s=4.0 * DEFAULT_SLO.tbt_s)
"""Four times the product's assumption: here the models, the router and the client share two cores with each other."""

RATE_PER_S = 2.0
"""Mean, thinned at random from the trace's 5.4: two cores compute for four instances, the router and the client."""

SAMPLE_S = 1.0
NODE_BASE_WATTS = 500.0


@dataclass
class Seen:
    """Sampled beside the replay, from the emulated boards and Slurm."""

    seconds: float = 0.0
    busy_joules: float = 0.0  # GPUs and bases of nodes with a job, and the off value of all others
    instance_s: float = 0.0
    most_instances: int = 0
    least_instances: int = 99
    clocks_mhz: set[int] | None = None


def arrivals(minutes: float, *, seed: int = 1) -> list[tuple[float, int, int]]:
    draw = random.Random(seed)
    rows: list[tuple[float, int, int]] = []
    first: datetime | None = None
    with TRACE.open() as file:
        for row in csv.DictReader(file):
            at = datetime.fromisoformat(row["TIMESTAMP"][:26])
            first = first or at
            at_s = (at - first).total_seconds()
            if at_s > minutes * 60.0:
                break
            rows.append((at_s, int(row["ContextTokens"]), int(row["GeneratedTokens"])))
    keep = RATE_PER_S * minutes * 60.0 / len(rows)
    return [
        (at_s, _scaled(prompt, PROMPT_SHARE), _scaled(output, OUTPUT_SHARE))
        for at_s, prompt, output in rows
        if draw.random() < keep
    ]


def _scaled(tokens: int, share: float) -> int:
    return min(MOST_TOKENS, max(1, round(tokens * share)))


def measure(layers: str, wanted: list[tuple[float, int, int]], console: Console) -> dict[str, Any]:
    with temporary_cluster(ClusterSettings()) as cluster:
        cluster.up()
        with pool_site(cluster) as site:
            # An instance, a server; no time limit comes up meanwhile.
            options = [*site.tables["serving_pools"]["sbatch_options"], "--exclusive", "--time=60"]
            site.tables["router"] |= {
                "ttft_small_s": SLO.ttft_s[Size.SMALL], "ttft_medium_s": SLO.ttft_s[Size.MEDIUM],
                "ttft_large_s": SLO.ttft_s[Size.LARGE], "tbt_s": SLO.tbt_s,
            }  # fmt: skip
            site.start(layers=layers, sbatch_options=options, cluster_period_s=60.0, slot_s=10.0)
            count = 4 if layers == "none" else 2
            site.wait(lambda: len(site.serving()) >= count)
            asyncio.run(replay(site.url, [(0.3 * number, 100, 8) for number in range(20)]))  # lengths are learnt
            before = site.view()
            console.print(f"layers {layers}: {len(wanted)} requests")
            with _sampled(site) as seen:
                answers = asyncio.run(replay(site.url, wanted))
            return _figures(answers, wanted, seen, before, site.view())


@contextmanager
def _sampled(site: PoolSite) -> Iterator[Seen]:
    seen, stop = Seen(clocks_mhz=set()), threading.Event()

    def watch() -> None:
        joules, at_s = _joules(site), time.monotonic()
        while not stop.wait(SAMPLE_S):
            now, now_s = _joules(site), time.monotonic()
            busy = _busy_nodes(site)
            took_s = now_s - at_s
            for name in now:
                on = (now[name] - joules[name]) + NODE_BASE_WATTS * took_s
                seen.busy_joules += on if name in busy else OFF_WATTS * took_s
            serving = len(site.serving())
            seen.seconds += took_s
            seen.instance_s += len(busy) * took_s
            seen.most_instances, seen.least_instances = (
                max(seen.most_instances, serving), min(seen.least_instances, serving),
            )  # fmt: skip
            assert seen.clocks_mhz is not None
            seen.clocks_mhz |= {lock for lock in site.locks() if lock is not None}
            joules, at_s = now, now_s

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def _joules(site: PoolSite) -> dict[str, float]:
    found = {}
    for name in site.slurm.node_names():
        with EmulatedNode.open(site.slurm.gpu_state(name)) as node:
            found[name] = sum(node.gpu_energy_joules(uuid) for uuid in node.gpu_uuids())
    return found


def _busy_nodes(site: PoolSite) -> set[str]:
    done = site.slurm.run("squeue", "--noheader", "--states=R,CG", "--format=%N")
    return set(done.stdout.split())


def _figures(
    answers: list[Asked],
    wanted: list[tuple[float, int, int]],
    seen: Seen,
    before: dict[str, Any],
    after: dict[str, Any],
) -> dict[str, Any]:
    good = [one for one in answers if one.status == 200]
    late = [
        one
        for one, (_, prompt, _) in zip(answers, wanted, strict=True)
        if one.status != 200 or one.first_token_s > SLO.ttft_s[prompt_size(prompt)]
    ]
    first = sorted(one.first_token_s for one in good)
    tokens = sum(one.tokens for one in good)
    joules = sum(one.joules or 0.0 for one in good)
    tbt = [of["between_tokens_p99_s"] for of in after["classes"].values() if of["between_tokens_p99_s"] is not None]
    return {
        "requests": len(answers),
        "failed": len(answers) - len(good),
        "ttft_in_time_fraction": 1.0 - len(late) / len(answers),
        "ttft_p50_s": first[len(first) // 2],
        "ttft_p99_s": first[int(0.99 * len(first))],
        "tbt_p99_s": max(tbt, default=None),
        "joules_per_token_in_answers": joules / tokens,
        "instances_joules": after["pools"]["energy_joules"] - before["pools"]["energy_joules"],
        "servers_joules": seen.busy_joules,
        "servers_mean_watts": seen.busy_joules / seen.seconds,
        "server_hours": seen.instance_s / 3600.0,
        "instances": [seen.least_instances, seen.most_instances],
        "locked_clocks_mhz": sorted(seen.clocks_mhz or ()),
        "seconds": seen.seconds,
        "arrival_gap_max_s": max(later[0] - earlier[0] for earlier, later in pairwise(wanted)),
    }


@click.command()
@click.option("--minutes", type=click.FloatRange(1, 60), default=10.0, show_default=True)
def main(minutes: float) -> None:
    """Compare a pool manager with all layers on to the same service with all of them off."""
    console = Console(highlight=False)
    wanted = arrivals(minutes)
    figures = {name: measure(layers, wanted, console) for name, layers in
               (("off", "none"), ("on", "instance,queue,cluster"))}  # fmt: skip
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps({"minutes": minutes, **figures}, indent=2) + "\n")
    table = Table("what", *figures)
    for key in figures["off"]:
        table.add_row(key, *(str(round(v, 4) if isinstance(v := one[key], float) else v) for one in figures.values()))
    console.print(table)
    saving = 1.0 - figures["on"]["servers_joules"] / figures["off"]["servers_joules"]
    console.print(f"saved {saving:.1%} of the servers' energy; written to {OUTPUT}")


if __name__ == "__main__":
    main()
