"""The GPU that a benchmark runs on. Loads without torch."""

from __future__ import annotations

from typing import Any


def gpu_device() -> Any | None:
    """The current CUDA device; None without torch or without a GPU."""
    try:
        import torch
    except ImportError:
        return None
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else None
