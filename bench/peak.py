"""make bench-peak: peak shaving on recorded loads, against the bound and beside simpler controllers.

    python -m bench.peak [--only wpd,philly,helios,pjm,event,openb,speed] [--out FILE]

Writes build/bench/peak.json. Parts that are left out keep their keys, as null.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench import peak_jobs, replay_speed
from bench import peak_loads as loads
from bench.peak_cases import measure
from bench.peak_plot import draw_grid_event
from slurm_power.forecasting.backtest import backtest
from slurm_power.forecasting.grid import Series

SERIES = {"wpd": ("wpd", 90), "pjm": ("pjm_east", 365), "philly": ("philly", 14), "helios": ("helios_earth", 7)}
Found = dict[str, Any]
Tell = Callable[[str, float], None]


def wpd(tell: Tell) -> Found:
    recorded = loads.wpd()
    rolled = loads.forecasts(recorded, loads.LONG, progress=lambda share: tell("forecasts", share))
    return {
        case: measure(recorded, rolled, tariff, power_fraction=0.15, progress=tell)
        for case, tariff in (("wpd_pge_e19", loads.E19), ("wpd_entergy", loads.ENTERGY))
    } | forecast_of("wpd", recorded.series, tell)


def philly(tell: Tell) -> Found:
    recorded = loads.philly()
    rolled = loads.forecasts(recorded, loads.SHORT, progress=lambda share: tell("forecasts", share))
    found = measure(recorded, rolled, loads.E19, power_fraction=0.10, progress=tell)
    return {"philly_pge_e19": found} | forecast_of("philly", recorded.series, tell)


def helios(tell: Tell) -> Found:
    """With and without what the scheduler knows: running and pending jobs, pending GPUs."""
    days = SERIES["helios"][1]
    config = loads.SHORTEST
    without = backtest(loads.helios(queue=False), days=days, config=config, progress=lambda s: tell("without", s))
    with_queue = backtest(loads.helios(queue=True), days=days, config=config, progress=lambda s: tell("queue", s))
    ratios = (without.pinball_ratio_to_naive, with_queue.pinball_ratio_to_naive)
    ablation = dict(zip(("pinball_ratio_without_queue", "pinball_ratio_with_queue"), ratios, strict=True))
    return {"helios_queue_ablation": ablation} | _scores("helios", with_queue.pinball_ratio_to_naive, with_queue.scores)


def pjm(tell: Tell) -> Found:
    return forecast_of("pjm", loads.pjm_east(), tell)


def forecast_of(part: str, series: Series, tell: Tell) -> Found:
    days = SERIES[part][1]
    config = loads.SHORT if days < 30 else loads.LONG
    found = backtest(series, days=days, config=config, progress=lambda share: tell("backtest", share))
    return _scores(part, found.pinball_ratio_to_naive, found.scores)


def _scores(part: str, ratio: float, scores: dict[str, Any]) -> Found:
    ours = scores["ours"]
    entry = {
        "pinball_ratio_to_naive": ratio,
        "coverage_95": ours.coverage_95,
        "coverage_80": ours.coverage_80,
        "peak_mape_fraction": ours.peak_mape_fraction,
        "peak_hour_hit_fraction": ours.peak_hour_hit_fraction,
        "days": SERIES[part][1],
        "beside": {name: asdict(one) for name, one in scores.items() if name != "ours"},
    }
    return {f"series.{SERIES[part][0]}": entry}


def grid_event(tell: Tell) -> Found:
    """Draws it beside Emerald's, too: build/bench/grid_event.png."""
    found = peak_jobs.grid_event(tell)
    draw_grid_event(found["grid_event"], peak_jobs.EVENT_SLOT_S, Path("build/bench/grid_event.png"))
    return found


def speed(tell: Tell) -> Found:
    found = replay_speed.measure(replay_speed.NoPolicy(), load_fraction=0.8)
    tell("speed", 1.0)
    return {"replay_simulated_s_per_s": found.simulated_s_per_s}


PARTS: dict[str, Callable[[Tell], Found]] = {
    "wpd": wpd,
    "philly": philly,
    "helios": helios,
    "pjm": pjm,
    "event": grid_event,
    "openb": peak_jobs.openb,
    "speed": speed,
}
CASES = ("wpd_pge_e19", "wpd_entergy", "philly_pge_e19")


def main() -> int:
    parser = argparse.ArgumentParser(description="measure peak shaving on recorded loads")
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--out", type=Path, default=Path("build/bench/peak.json"))
    options = parser.parse_args()
    chosen = options.only.split(",")
    unknown = set(chosen) - PARTS.keys()
    if unknown:
        parser.error(f"--only {options.only}: known are {', '.join(PARTS)}")
    if not loads.DATA.is_dir():
        print(f"bench: the recorded loads are not at {loads.DATA}", file=sys.stderr)
        return 1
    found: Found = {}
    with Progress(console=Console(stderr=True), transient=True) as bar:
        for part in chosen:
            task, started_s = bar.add_task(part, total=1.0), time.monotonic()
            found |= PARTS[part](
                lambda step, share, p=part, t=task: bar.update(t, description=f"{p}: {step}", completed=share)
            )  # type: ignore[misc]
            bar.remove_task(task)
            print(f"{part}: {time.monotonic() - started_s:.0f} s", file=sys.stderr)
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(_result(found), indent=2) + "\n", encoding="utf-8")
    _print(_result(found))
    return 0


def _result(found: Found) -> Found:
    cases = {name: found.get(name) for name in CASES}
    known = [case for case in cases.values() if case is not None]
    return {
        **cases,
        "helios_queue_ablation": found.get("helios_queue_ablation"),
        "series": {name: found.get(f"series.{name}") for name, _ in SERIES.values()},
        "charge_created_peaks": sum(case["charge_created_peaks"] for case in known) if known else None,
        "hard_violations": sum(case["hard_violations"] for case in known) if known else None,
        "grid_event": found.get("grid_event"),
        "openb_1000_gpus_e19": found.get("openb_1000_gpus_e19"),
        "replay_simulated_s_per_s": found.get("replay_simulated_s_per_s"),
    }


def _print(result: Found) -> None:
    console = Console(highlight=False)
    bills = Table("bill", "none", "best fixed rule", "naive MPC", "ours", "perfect 24 h", "bound", "ours above bound")
    for name in CASES:
        case = result[name]
        if case is not None:
            keys = ("none", "threshold_hindsight", "naive_mpc", "ours", "ours_perfect_24h", "perfect")
            above = f"{case['ours_above_perfect_fraction']:.2%}"
            bills.add_row(name, *(f"{case[f'bill_{key}']:,.0f}" for key in keys), above)
            captured = case["saving_captured_fraction"]
            shares = [captured.get(key) for key in keys]
            bills.add_row("  of the saving", *("" if share is None else f"{share:.0%}" for share in shares), "")
    console.print(bills)
    series = Table("series", "pinball / naive", "below 95 %", "in the 80 % band", "peak off", "peak hour hit")
    for name, one in result["series"].items():
        if one is not None:
            keys = ("coverage_95", "coverage_80", "peak_mape_fraction", "peak_hour_hit_fraction")
            series.add_row(name, f"{one['pinball_ratio_to_naive']:.2f}", *(f"{one[key]:.1%}" for key in keys))
    console.print(series)
    event = result["grid_event"]
    if event is not None:
        console.print(
            f"grid event: asked {event['asked_cut_fraction']:.0%} less, kept {event['achieved_cut_fraction']:.1%} less "
            f"for {event['held_s'] / 3600:.2f} h, {event['firm_jobs_affected']} firm jobs touched; worst slowdown: "
            + "; ".join(f"{name}: {lost:.1%}" for name, lost in event["worst_slowdown_by_class"].items())
            + f" ({event['note']})"
        )
    if result["openb_1000_gpus_e19"] is not None:
        console.print(_openb_table(result["openb_1000_gpus_e19"]))
    if result["replay_simulated_s_per_s"] is not None:
        console.print(
            f"replay: {result['replay_simulated_s_per_s']:,.0f} simulated seconds per second, 1,000 nodes of 8 GPUs"
        )


def _openb_table(variants: Found) -> Table:
    table = Table(
        "openb on 1,000 GPUs, ten days of E-19", "peak kW", "bill", "wait p95 by class, h", "GPU h capped", "lost"
    )
    for name, one in variants.items():
        waits = ", ".join(
            f"{power_class} {'-' if wait['p95'] is None else format(wait['p95'] / 3600, '.1f')}"
            for power_class, wait in one["wait_s"].items()
        )
        lost = f"{one['gpu_hours_lost']:,.0f}"
        table.add_row(
            name, f"{one['peak_kw']:,.0f}", f"{one['bill']:,.0f}", waits, f"{one['gpu_hours_capped']:,.0f}", lost
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
