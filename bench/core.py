"""`make bench`: the agent's load, the plugin's share of a launch, the controller's tick, the planner's solve."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import agent_load, controller_tick, lp_solve, spank_launch

OUTPUT = Path("build/bench/core.json")
AIMS = {
    "agent_cpu_fraction_1hz": ("agent, 8 GPUs at 1 Hz, of one core", 0.01),
    "agent_cpu_fraction_10hz": ("agent, 8 GPUs at 10 Hz, of one core", None),
    "agent_rss_bytes": ("agent's resident memory, bytes", None),
    "spank_added_s_median": ("added to `srun true` by the plugin, s", 0.005),
    "tick_s_1000_nodes_10000_jobs": ("controller tick, 1,000 nodes, 10,000 jobs, s", 1.0),
    "lp_solve_s_24h": ("plan of 24 h in 15-minute slots, s", 0.05),
}


def main() -> None:
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory(prefix="slurm-power-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        figures = _measure(console, directory)
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(figures, indent=2) + "\n")
    _print(console, figures)


def _measure(console: Console, directory: Path) -> dict[str, float]:
    figures: dict[str, float] = {"lp_solve_s_24h": lp_solve.measure()}
    console.print("planner measured; the tick next")
    figures["tick_s_1000_nodes_10000_jobs"] = controller_tick.measure()
    console.print("tick measured; the agent next (50 s)")
    slow = agent_load.measure(directory / "agent-1hz", sample_period_s=1.0)
    figures["agent_cpu_fraction_1hz"], figures["agent_rss_bytes"] = slow.cpu_fraction, slow.rss_bytes
    figures["agent_cpu_fraction_10hz"] = agent_load.measure(directory / "agent-10hz", sample_period_s=0.1).cpu_fraction
    figures["spank_added_s_median"] = spank_launch.measure(directory)
    return {key: figures[key] for key in AIMS}


def _print(console: Console, figures: dict[str, float]) -> None:
    table = Table("what", "seen", "aim below")
    for key, (label, aim) in AIMS.items():
        table.add_row(label, f"{figures[key]:.4g}", "-" if aim is None else f"{aim:g}")
    console.print(table)
    console.print(f"Written to {OUTPUT}")


if __name__ == "__main__":
    main()
