"""What a rank of a run does in tests: train, and at some step kill itself, hang, signal, poison a gradient or steer."""

from __future__ import annotations

import ctypes
import json
import math
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import training.run.start
from tests.training.run_configs import run_config
from training.errors import TrainingError
from training.run.control import ControlRequest, write_control
from training.run.listener import NullListener
from training.run.loop import run_training
from training.run.signals import PowerSignals

LITTLE = {
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
}


@dataclass(frozen=True)
class Act:
    """`what` happens on `rank` in the first forward pass of `step`, counted from 1 at each start."""

    what: str
    rank: int
    step: int
    value: int = 0


class Acting(NullListener):
    def __init__(self, act: Act | None, run_folder: Path) -> None:
        self._act, self._run_folder = act, run_folder
        self._step = 1

    def on_instruction(self, name: str, phase: str) -> None:
        if name == "optimizer" and phase == "end":
            self._step += 1
        act = self._act
        due = act is not None and name == "forward" and phase == "begin" and self._step >= act.step
        if act is not None and due and int(os.environ["RANK"]) == act.rank:
            self._act = None
            self._do(act)

    def _do(self, act: Act) -> None:
        match act.what:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                ctypes.CDLL(None).pause()
            case "signal":
                os.kill(os.getpid(), act.value)
            case "poison":
                weight = next(iter(_built[0].module.parameters()))
                weight.fp32_gradient.view(-1)[0] = math.nan  # all other summands are added to it
            case "micro":
                write_control(self._run_folder, ControlRequest(asked_at_unix_s=time.time(), micro_sequences=act.value))


_built: list[Any] = []
_real = training.run.start.build_engine


def _known(*arguments: Any, **options: Any) -> Any:
    """The real engine, where a poisoner finds it."""
    _built.append(_real(*arguments, **options))
    return _built[-1]


def train(folder: Path, settings: dict[str, Any], act: Act | None = None) -> int:
    training.run.start.build_engine = _known
    config = run_config(folder, **settings)
    with PowerSignals() as signals:
        try:
            result = run_training(config, listener=Acting(act, config.run.folder), signals=signals)
        except TrainingError as error:
            print(error, file=sys.stderr)
            return error.exit_code
    return result.exit_code


def write_model(folder: Path) -> dict[str, Any]:
    """A model so little that a step takes milliseconds; the settings that choose it."""
    model = folder / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(LITTLE))
    return {"model__preset": None, "model__folder": str(model), "model__from_scratch": True}
