"""Seconds and joules of a call on a GPU, and what a large BF16 product reaches. Reads the board, changes nothing."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Any

import torch

WARM_UP, ROUNDS = 5, 20
ENERGY_S = 3.0
"""How long a case runs for its energy: the counter of an H100 moves every 20 to 100 ms."""

PEAK_SIZE = 8192
READ_BYTES = 4 * 1024**3

Step = Callable[[], Any]


def seconds(step: Step) -> float:
    """Median of one call, by CUDA events."""
    for _ in range(WARM_UP):
        step()
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(ROUNDS)]
    for begin, end in events:
        begin.record()
        step()
        end.record()
    torch.cuda.synchronize()
    return statistics.median(float(begin.elapsed_time(end)) for begin, end in events) / 1e3


def joules(step: Step, *, step_s: float, device: torch.device) -> float | None:
    """Of one call, the idle board's share included; None where the energy counter cannot be read."""
    counter_joules = _energy_counter(device)
    if counter_joules is None:
        return None
    calls = max(1, math.ceil(ENERGY_S / step_s))
    torch.cuda.synchronize()
    before_joules = counter_joules()
    for _ in range(calls):
        step()
    torch.cuda.synchronize()
    return (counter_joules() - before_joules) / calls


def _energy_counter(device: torch.device) -> Callable[[], float] | None:
    """Joules since the driver was loaded, of the board that CUDA calls `device`."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError:
        return None
    return lambda: float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3


def bf16_flops_per_s(device: torch.device) -> float:
    """Of a square product of PEAK_SIZE."""
    a, b = (torch.randn(PEAK_SIZE, PEAK_SIZE, device=device, dtype=torch.bfloat16) for _ in "ab")
    return 2.0 * PEAK_SIZE**3 / seconds(lambda: a @ b)


def memory_read_bytes_per_s(device: torch.device) -> float:
    """Of one large sum."""
    source = torch.ones(READ_BYTES // 4, device=device)
    return READ_BYTES / seconds(source.sum)
