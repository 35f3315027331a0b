"""How much slower a GPU works when its power is cut, and how far a slowdown bound lets the cap go."""

from __future__ import annotations

import numpy as np

from slurm_power.relocation.settings import RelocationConfig


def throughput_fraction(power_fraction: float, config: RelocationConfig) -> float:
    """Of the uncapped throughput, when a GPU gets `power_fraction` of what it would draw."""
    return float(np.interp(power_fraction, config.curve_power_fractions, config.curve_throughput_fractions))


def lowest_cap_watts(gpu_watts: float, *, max_slowdown_fraction: float, config: RelocationConfig) -> float:
    """The lowest cap that keeps the slowdown within its bound and the board within its range."""
    least = np.interp(1.0 - max_slowdown_fraction, config.curve_throughput_fractions, config.curve_power_fractions)
    return max(config.min_gpu_cap_watts, float(least) * gpu_watts)
