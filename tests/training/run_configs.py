"""Small runs for tests."""

from __future__ import annotations

import random
import tomllib
from pathlib import Path
from typing import Any

from training.data.prepare import prepare
from training.run.config import RunConfig
from training.run.config_text import example_config
from training.run.toml_tables import build


def make_dataset(folder: Path, *, characters: int = 40_000) -> Path:
    """Text with a grain of order in it."""
    letters = random.Random(0)
    text = folder / "text.txt"
    words = ["for ", "each ", "watt ", "and ", "token ", "we ", "pay\n"]
    text.write_text("".join(letters.choice(words) for _ in range(characters // 5)))
    prepare([text], folder / "data")
    return folder / "data"


def run_config(folder: Path, **changes: Any) -> RunConfig:
    """A run in `folder`, on its dataset, with `table__key=value` changes; None takes a key out."""
    values = tomllib.loads(example_config())
    settings = {
        "data__dataset": str(folder / "data"),
        "data__sequence_length": 32,
        "data__evaluate_every_steps": 5,
        "batch__global_sequences": 8,
        "batch__micro_sequences": 4,
        "precision__policy": "bf16",
        "optimizer__steps": 10,
        "optimizer__warmup_steps": 2,
        "optimizer__weight_decay": 0.0,
        "checkpoint__every_steps": 4,
        "checkpoint__asynchronous": False,
        "run__folder": str(folder / "run"),
        "run__watchdog_s": 120.0,
        **changes,
    }
    for name, value in settings.items():
        table, _, key = name.partition("__")
        values[table][key] = value
        if value is None:
            del values[table][key]
    return build(RunConfig, values, where="run.toml:")
