"""make bench-llm: a synthetic week of LLM serving under each policy, against the honest baseline and the oracle.

    python -m bench.llm [--only week,hour,sensitivity,speed,router] [--peak-factor 1] [--workers 2] [--out FILE]

Writes build/bench/llm.json. Parts that are left out keep their keys, as null. Instances are simulated with a profile
that is composed of public figures, not measured on one machine.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench.llm_cases import PRICES, Case, Found, run, sensitivity_cases, servers_of
from slurm_power.replay.serving.policies import POLICIES
from slurm_power.units import kwh_from_joules

PARTS = ("week", "hour", "sensitivity", "speed", "router")
SPEED_SCALE = 31.0
"""Of the hour: about forty servers."""

ORDER = sorted(POLICIES, key=lambda name: name not in ("single-pool", "all", "oracle"))
"""What the others are compared with comes first."""

SAVED = ("energy_joules", "carbon_g", "cost")


def measure(parts: tuple[str, ...], *, peak_factor: float, days: int, workers: int) -> tuple[dict[str, Any], Any]:
    cases: dict[tuple[str, str], Case] = {}
    if "week" in parts:
        servers = servers_of(peak_factor, days, 1.0)
        cases |= {("week", name): Case(name, name, servers, peak_factor=peak_factor, days=days) for name in ORDER}
    if "sensitivity" in parts:
        servers = servers_of(peak_factor, 5, 1.0)
        cases |= {("sensitivity", name): one for name, one in sensitivity_cases(peak_factor, servers).items()}
    if "speed" in parts:
        servers = servers_of(None, 7, SPEED_SCALE)
        cases |= {("speed", name): Case(name, name, servers, scale=SPEED_SCALE) for name in ("single-pool", "all")}
    if "hour" in parts:
        servers = servers_of(None, 7, 1.0)
        cases |= {("hour", name): Case(name, name, servers) for name in POLICIES}
    found = _run_all(cases, workers)
    grouped: dict[str, dict[str, Found]] = {part: {} for part in PARTS}
    for (part, name), one in found.items():
        grouped[part][name] = one
    grouped["week"] = {name: grouped["week"][name] for name in POLICIES if name in grouped["week"]}
    week, whole_hour = _policies(grouped["week"]), _policies(grouped["hour"])
    result = {
        "policies": week or None,
        "saving_fraction_all_vs_single_pool": _saving(week, "all"),
        "hour": {
            "policies": whole_hour,
            "saving_fraction_all_vs_single_pool": _saving(whole_hour, "all"),
            "oracle_saving_fraction": _saving(whole_hour, "oracle"),
        }
        if whole_hour
        else None,
        "oracle_saving_fraction": _saving(week, "oracle"),
        "sensitivity": _policies(grouped["sensitivity"]) or None,
        "router_added_ttft_p99_s": _router() if "router" in parts else None,
        "simulation_wall_s": max((one.more["wall_s"] for one in grouped["speed"].values()), default=None),
    }
    return result, grouped


def _run_all(cases: Mapping[tuple[str, str], Case], workers: int) -> dict[tuple[str, str], Found]:
    found = {}
    with Progress(console=Console(stderr=True), transient=True) as bar, ProcessPoolExecutor(workers) as pool:
        task = bar.add_task("simulations", total=len(cases))
        waiting = {pool.submit(run, case): key for key, case in cases.items()}
        for done in as_completed(waiting):
            part, name = waiting[done]
            one = found[part, name] = done.result()
            bar.console.print(f"{part}, {name}: {json.dumps(dict(one.figures))}")
            bar.advance(task)
    return {key: found[key] for key in cases}


def _policies(found: Mapping[str, Found]) -> dict[str, dict[str, float]]:
    return {name: dict(one.figures) for name, one in found.items()}


def _saving(policies: Mapping[str, Mapping[str, float]], name: str, key: str = "energy_joules") -> float | None:
    if name not in policies or "single-pool" not in policies:
        return None
    return 1.0 - policies[name][key] / policies["single-pool"][key]


def _router() -> float | None:
    """The router's own bench measures it on loopback."""
    if importlib.util.find_spec("bench.llm_router") is None:
        print("bench.llm_router is not there: router_added_ttft_p99_s stays null", file=sys.stderr)
        return None
    found: dict[str, float] = importlib.import_module("bench.llm_router").measure()
    return found["router_added_ttft_p99_s"]


def show(result: Mapping[str, Any], grouped: Mapping[str, Mapping[str, Found]], console: Console) -> None:
    for part, found in grouped.items():
        if not found:
            continue
        table = Table(
            part, "kWh", "J/token", "kept", "worst class", "TTFT p50 p99", "TBT p50 p99", "GPU h", "server h", "cost",
            "kg CO2", "kW p50 p99", "starts", "lost", "wall, CPU s", box=None,
        )  # fmt: skip
        for name, one in found.items():
            table.add_row(*_row(name, one))
        console.print(table)
        first = next(iter(found.values()))
        console.print(
            f"{part}: {first.more['requests']:,} requests, single-pool with {first.more['servers']} servers\n"
        )
    week = result["policies"]
    if week:
        for key in SAVED:
            console.print(f"week, all against single-pool: {key} saved {_saving(week, 'all', key):.1%}")
        console.print(f"week, oracle: energy saved {result['oracle_saving_fraction']:.1%}")
    console.print(
        f"Assumed: {PRICES.per_gpu_hour} {PRICES.currency} per GPU-hour held by an instance, "
        f"{PRICES.carbon_g_per_kwh[0]:.0f} g CO2 per kWh at all hours; energy is that of the GPUs, hosts apart. The "
        "week is SYNTHETIC; the profile is composed, not measured on one machine."
    )


def _row(name: str, one: Found) -> tuple[str, ...]:
    figures, more = one.figures, one.more
    worst, worst_name = more["worst_class"]
    return (
        name,
        f"{kwh_from_joules(figures['energy_joules']):,.1f}",
        f"{figures['joules_per_token']:.2f}",
        f"{figures['slo_attainment_fraction']:.3%}",
        f"{worst_name} {worst:.1%}",
        f"{more['ttft_p50_s']:.3f} {figures['ttft_p99_s']:.3f}",
        f"{more['tbt_p50_s']:.4f} {figures['tbt_p99_s']:.4f}",
        f"{figures['gpu_hours']:,.1f}",
        f"{more['server_hours']:,.1f}",
        f"{figures['cost']:,.0f}",
        f"{figures['carbon_g'] / 1000:,.1f}",
        f"{more['power_p50_watts'] / 1000:.2f} {more['power_p99_watts'] / 1000:.2f}",
        f"{more['starts']}",
        f"{more['lost']}",
        f"{more['wall_s']:.0f} {more['cpu_s']:.0f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.llm", description=__doc__)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas")
    parser.add_argument("--peak-factor", type=float, default=1.0, help="the week's peak as a multiple of the hour")
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("build/bench/llm.json"))
    options = parser.parse_args()
    parts = tuple(options.only.split(","))
    if unknown := set(parts) - set(PARTS):
        parser.error(f"--only {','.join(sorted(unknown))}: known are {','.join(PARTS)}")
    result, grouped = measure(parts, peak_factor=options.peak_factor, days=options.days, workers=options.workers)
    show(result, grouped, Console(highlight=False, width=200))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(options.out)


if __name__ == "__main__":
    main()
