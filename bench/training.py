"""`make bench-training`: parity of plans, bytes of the dispatch, bubbles, what FP8 costs in loss, clocks, a GPU if any.

Half an hour on two cores, most of it for the loss gap, which `python -m bench.training_loss_gap` measures alone.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import gpu_training, training_bubble, training_bubble_measured, training_dispatch, training_parity
from bench.training_loss_gap import DEEPSEEK_V3_BOUND, Scale
from bench.training_loss_gap import measure as measure_loss_gap

OUTPUT = Path("build/bench/training.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=Scale().steps, help="of each run of the loss gap")
    parser.add_argument("--seeds", type=int, default=len(Scale().seeds), help="of the loss gap")
    parser.add_argument("--folder", type=Path, help="keep the runs of the loss gap here, and go on from those there")
    options = parser.parse_args()
    console = Console(highlight=False)
    figures: dict[str, Any] = {}
    for title, measure in (
        ("bytes of the dispatch", lambda: {"dispatch_bytes_ratio": training_dispatch.measure()}),
        ("bubbles, 2 minutes", lambda: training_bubble.measure(training_bubble_measured.measure())),
        ("parity of plans, 5 minutes", training_parity.measure),
        ("FP8 against BF16 on a GPU", lambda: {"gpu": gpu_training.measure()}),
        (f"loss gap, {options.seeds} seeds of {options.steps} steps", lambda: _loss_gap(options, console)),
    ):
        console.print(f"{title} ...")
        figures |= measure()
        OUTPUT.parent.mkdir(parents=True, exist_ok=True)
        OUTPUT.write_text(json.dumps(figures, indent=2) + "\n")
    _print(figures, console)


def _loss_gap(options: argparse.Namespace, console: Console) -> dict[str, object]:
    scale = Scale(seeds=range(options.seeds), steps=options.steps)
    with tempfile.TemporaryDirectory(prefix="slurm-power-loss-gap-") as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        return measure_loss_gap(folder, scale, say=console.print)


def _print(figures: dict[str, Any], console: Console) -> None:
    console.print(f"dispatch, FP8 over BF16: {figures['dispatch_bytes_ratio']:.4f} of the bytes")
    for case in figures["bubble"]:
        measured = "-" if case["measured"] is None else f"{case['measured']:.3f}"
        shares = f"formula {case['formula']:.3f}  replay {case['replay']:.3f}  measured {measured}"
        console.print(f"bubble {case['schedule']:<9} p {case['p']} m {case['m']:<3} {shares}")
    for reference, plans in figures["parity_max_abs_loss_difference"].items():
        for plan, policies in plans.items():
            console.print(f"parity {reference:<11} {plan:<15} {json.dumps(policies)}")
    bound = "below" if figures["fp8_loss_gap_below_bound"] else "not shown to be below"
    console.print(
        f"loss gap to BF16: FP8 {figures['fp8_loss_gap_mean']:+.3%} (se {figures['fp8_loss_gap_se']:.3%}, "
        f"upper bound {figures['fp8_loss_gap_upper_bound']:+.3%}, {bound} {DEEPSEEK_V3_BOUND:.2%}), "
        f"FP32 {figures['fp32_loss_gap_mean']:+.3%} (se {figures['fp32_loss_gap_se']:.3%})"
    )
    console.print(f"clocks by pass save {figures['pipeline_energy_saved_fraction']:.1%} at equal step time")
    console.print("GPU: none at hand" if figures["gpu"] is None else "GPU: see the file")
    console.print(f"Written to {OUTPUT}")


if __name__ == "__main__":
    main()
