"""A model by name or folder, as its sizes only; no weights are read and torch is not imported."""

from __future__ import annotations

import json
from pathlib import Path

from training.errors import ConfigError
from training.model.config import ModelConfig
from training.model.presets import PRESETS, preset
from training.run.config_tables import ModelTable


def model_named(text: str) -> ModelConfig:
    """A preset's name or a Hugging Face folder. Raise ConfigError for neither."""
    if text in PRESETS:
        return preset(text)
    folder = Path(text)
    if folder.is_dir():
        return model_in(folder)
    raise ConfigError(f"model = {text}: must be one of {', '.join(PRESETS)} or a folder with a config.json")


def model_of(table: ModelTable) -> ModelConfig:
    """What a run's [model] names."""
    return model_in(table.folder) if table.folder is not None else model_named(table.preset or "")


def model_in(folder: Path) -> ModelConfig:
    path = folder / "config.json"
    try:
        return ModelConfig.from_hf(json.loads(path.read_text()))
    except OSError as cause:
        raise ConfigError(f"{path}: {cause.strerror}") from cause
    except ValueError as cause:
        raise ConfigError(f"{path}: not JSON: {cause}") from cause
