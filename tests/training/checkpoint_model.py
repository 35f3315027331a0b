"""A little model's state as boxes and values, cut as several plans cut it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from training.checkpoint.boxes import Box
from training.checkpoint.manifest import Manifest, Progress

SHAPES = {
    "embed.weight": (16, 8),
    "norm.weight": (8,),
    "mlp.experts.0.up.weight": (12, 8),
    "mlp.experts.1.up.weight": (12, 8),
}


def whole_value(name: str, kind: str, *, step: int = 0) -> Any:
    generator = torch.Generator().manual_seed(_seed(name, kind, step))
    value = torch.randn(SHAPES[name], generator=generator)
    return value if kind == "master" else value.to(torch.bfloat16)


def _seed(name: str, kind: str, step: int) -> int:
    return sum(f"{name}{kind}{step}".encode()) * 7919 + step


def boxes(*, tensor_rank: int = 0, tensor_ranks: int = 1, experts: tuple[int, ...] = (0, 1)) -> list[Box]:
    """What one rank holds: matrices cut over the tensor axis by rows, the experts that are its own, the norm whole."""
    held = []
    for name, shape in SHAPES.items():
        if "experts" in name and int(name.split(".")[2]) not in experts:
            continue
        rows = shape[0] // tensor_ranks if len(shape) > 1 else shape[0]
        start = (tensor_rank * rows, 0) if len(shape) > 1 else (0,)
        for kind in ("master", "exp_avg", "exp_avg_sq"):
            held.append(Box(name, kind, shape, start, (rows, *shape[1:])))
    return held


def values(held: list[Box], *, step: int = 0) -> list[tuple[Box, Any]]:
    return [
        (
            box,
            whole_value(box.name, box.kind, step=step)[
                tuple(slice(a, a + n) for a, n in zip(box.start, box.shape, strict=True))
            ],
        )
        for box in held
    ]


def manifest(step: int) -> Manifest:
    return Manifest(
        progress=Progress(
            step=step, sequences_consumed=step * 8, learning_rate=1e-3, seed=0, global_sequences=8, sequence_length=32
        ),
        model={"model_type": "llama"},
        plan={"pipeline": 1},
        config={"folder": Path("runs/a")},
        files=(),
        written_at_unix_s=0.0,
    )
