"""The GPU that a benchmark runs on. Loads without torch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def gpu_device() -> Any | None:
    """The current CUDA device; None without torch or without a GPU."""
    try:
        import torch
    except ImportError:
        return None
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else None


def measured(name: str, measure: Callable[[], dict[str, Any] | None]) -> dict[str, Any]:
    """What `measure` finds; without a GPU the benchmark called `name` ends with one line."""
    figures = measure()
    if figures is None:
        sys.exit(f"{name}: needs a CUDA device, and torch sees none")
    return figures
