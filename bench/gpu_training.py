"""FP8 against BF16 on a GPU at DeepSeek-V3's shapes, forward and backward, with the roofline and the joules beside it.

`python -m bench.gpu_training` prints a table; `measure()` returns its figures, None without a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.gpu_device import gpu_device, measured
from bench.gpu_roofline import TOKENS, Layer, feed_forward, layers, preset_of, roofline_s
from training.planning.hardware import Hardware, hardware
from training.precision import BF16, FP8, policy

COLUMNS = (
    *("layer", "tokens", "BF16 ms", "FP8 ms", "W cached ms", "speed-up", "roofline"),
    *("BF16 of roof", "FP8 of roof", "BF16 mJ/token", "FP8 mJ/token"),
)


def main() -> None:
    show(measured("bench.gpu_training", measure), Console(highlight=False))


def measure() -> dict[str, Any] | None:
    device = gpu_device()
    if device is None:
        return None
    import torch

    from bench import gpu_meter, gpu_steps
    from training.fp8.backend import pick

    name = torch.cuda.get_device_name(device)
    preset = preset_of(name)
    stated = hardware(preset) if preset else None
    return {
        "device": name,
        "torch": torch.__version__,
        "backend": pick("auto", device).name,
        "stated_peaks": preset,
        "bf16_flops_per_s_measured": gpu_meter.bf16_flops_per_s(device),
        "scaled_mm_calc_diff": gpu_steps.scaled_mm_differences(device),
        "linear": [_measured(layer.name, [layer], stated, device) for layer in layers()],
        "feed_forward": [_measured("feed-forward", feed_forward(tokens), stated, device) for tokens in TOKENS],
    }


def _measured(name: str, parts: Sequence[Layer], stated: Hardware | None, device: Any) -> dict[str, Any]:
    """One layer, or gate and up with down behind them."""
    from bench import gpu_meter, gpu_steps
    from training.matmul import weight_cache

    seconds, joules = {}, {}
    for precision in ("bf16", "fp8"):
        chosen = policy(precision)
        step = (
            gpu_steps.linear_step(parts[0], chosen, device)
            if len(parts) == 1
            else gpu_steps.feed_forward_step(parts[0], parts[1], chosen, device)
        )
        seconds[precision] = gpu_meter.seconds(step)
        joules[precision] = gpu_meter.joules(step, step_s=seconds[precision], device=device)
    with weight_cache():
        cached_s = gpu_meter.seconds(step)
    return {"name": name, "fp8_weight_cached_s": cached_s} | compared(parts, seconds, joules, stated)


def compared(
    parts: Sequence[Layer],
    seconds: Mapping[str, float],
    joules: Mapping[str, float | None],
    stated: Hardware | None,
) -> dict[str, Any]:
    """What was measured for "bf16" and "fp8", the roofline beside it where the board's peaks are stated.

    A block's roofline counts its products and quantisers, not the activation between them.
    """
    tokens = parts[0].tokens
    row: dict[str, Any] = {"tokens": tokens, "fp8_speedup": seconds["bf16"] / seconds["fp8"]}
    bounds = {}
    for precision in (BF16, FP8):
        bound_s = math.inf if stated is None else sum(roofline_s(part, precision, stated) for part in parts)
        bounds[precision] = bound_s if math.isfinite(bound_s) else None
        energy_joules = joules[precision.value]
        row[precision.value] = {
            "seconds": seconds[precision.value],
            "roofline_fraction": None if bounds[precision] is None else bound_s / seconds[precision.value],
            "flops_per_s": sum(part.flops for part in parts) / seconds[precision.value],
            "joules_per_token": None if energy_joules is None else energy_joules / tokens,
        }
    bf16_s, fp8_s = bounds[BF16], bounds[FP8]
    row["fp8_speedup_roofline"] = None if bf16_s is None or fp8_s is None else bf16_s / fp8_s
    return row


def show(figures: Mapping[str, Any], console: Console) -> None:
    measured = figures["bf16_flops_per_s_measured"] / 1e12
    console.print(f"{figures['device']}, torch {figures['torch']}, FP8 by {figures['backend']}")
    console.print(
        f"large BF16 product: {measured:.0f} TFLOP/s; peaks as stated: {figures['stated_peaks'] or 'unknown'}"
    )
    console.print(f"block-wise scaled_mm against the reference, calc_diff: {figures['scaled_mm_calc_diff']}")
    table = Table(*COLUMNS)
    for row in [*figures["linear"], *figures["feed_forward"]]:
        table.add_row(*cells(row))
    console.print(table)


def cells(row: Mapping[str, Any]) -> list[str]:
    bf16, fp8 = row["bf16"], row["fp8"]
    return [
        row["name"],
        str(row["tokens"]),
        f"{bf16['seconds'] * 1e3:.3f}",
        f"{fp8['seconds'] * 1e3:.3f}",
        f"{row['fp8_weight_cached_s'] * 1e3:.3f}",
        f"{row['fp8_speedup']:.2f}x",
        _told(row["fp8_speedup_roofline"], "{:.2f}x"),
        _told(bf16["roofline_fraction"], "{:.0%}"),
        _told(fp8["roofline_fraction"], "{:.0%}"),
        _told(bf16["joules_per_token"], "{:.2f}", scale=1e3),
        _told(fp8["joules_per_token"], "{:.2f}", scale=1e3),
    ]


def _told(value: float | None, form: str, *, scale: float = 1.0) -> str:
    return "unknown" if value is None else form.format(value * scale)


if __name__ == "__main__":
    main()
