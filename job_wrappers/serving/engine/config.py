"""What the engine is told at start. Limits, clock and model can be changed later; sizes of memory cannot."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from job_wrappers.serving.errors import require

DTYPES = ("auto", "fp32", "bf16")
PREEMPTION_MODES = ("auto", "swap", "recompute")
AFTER_SWITCH = ("sleep", "free")

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    name: str
    """What clients and the steering call it."""

    path: Path
    """A Hugging Face folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    models: tuple[ModelSpec, ...]
    """The first serves from the start; the others wait in CPU RAM, or on disk, for a switch."""

    public_name: str | None = None
    """One more name by which clients may ask for whichever model is active. Any model's own name does that too."""

    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    """Of activations, cache and unscaled weights; auto: as config.json says. FP8 weights with scales stay FP8."""

    attention: str = "auto"
    block_tokens: int = 16

    memory_bytes: int | None = None
    """Of each rank, on its device: weights, activations and cache of all models that may be awake at once. None:
    `memory_fraction` of what is free at start."""

    memory_fraction: float | None = None
    """None: 0.9 on a GPU, 0.5 of the RAM that is available on a CPU."""

    swap_bytes: int = 1024 * MIB
    """Pinned host memory of each rank for preempted sequences."""

    max_num_seqs: int = 128
    max_batched_tokens: int | None = None
    """Tokens of one iteration; also what activations are measured with. None: 8192 on a GPU, 512 on a CPU."""

    max_model_len: int | None = None
    """None: the model's own."""

    max_waiting: int = 1024
    """Requests in the queue; one more is answered with 429."""

    preemption: Literal["auto", "swap", "recompute"] = "auto"
    prefix_caching: bool = True
    batch_patience_s: float = 30.0
    """After this a waiting `batch` request counts as `interactive`."""

    after_switch: Literal["sleep", "free"] = "sleep"
    """The model that is no longer active: its weights sleep in CPU RAM, or are dropped and read again when wanted."""

    tensor_parallel: int = 1
    pipeline_parallel: int = 1

    slo_ttft_s: float | None = None
    """First token within this time; what slack is reckoned against for requests without a deadline of their own."""

    slo_tbt_s: float | None = None

    check_invariants: bool = False
    """After every iteration: free + referenced + cached blocks = total, and so on. Slow."""

    def __post_init__(self) -> None:
        require(bool(self.models), "models", "()", "needs at least one")
        names = [model.name for model in self.models]
        require(len(set(names)) == len(names), "models", ", ".join(names), "two have one name")
        require(self.dtype in DTYPES, "dtype", self.dtype, f"must be one of {', '.join(DTYPES)}")
        modes = f"must be one of {', '.join(PREEMPTION_MODES)}"
        require(self.preemption in PREEMPTION_MODES, "preemption", self.preemption, modes)
        ways = f"must be one of {', '.join(AFTER_SWITCH)}"
        require(self.after_switch in AFTER_SWITCH, "after_switch", self.after_switch, ways)
        for key in ("block_tokens", "max_num_seqs", "max_waiting", "tensor_parallel", "pipeline_parallel"):
            require(getattr(self, key) >= 1, key, getattr(self, key), "must be at least 1")
        for key in ("memory_bytes", "max_batched_tokens", "max_model_len", "slo_ttft_s", "slo_tbt_s"):
            value = getattr(self, key)
            require(value is None or value > 0, key, value, "must be above 0")
        share = self.memory_fraction
        require(share is None or 0.0 < share <= 1.0, "memory_fraction", share, "must be above 0 and at most 1")
        require(self.swap_bytes >= 0, "swap_bytes", self.swap_bytes, "must not be negative")
        require(self.batch_patience_s >= 0, "batch_patience_s", self.batch_patience_s, "must not be negative")

    @property
    def world_size(self) -> int:
        return self.tensor_parallel * self.pipeline_parallel


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePorts:
    """What the engine reaches the world with. What does not say otherwise is called from the engine's thread."""

    now_s: Callable[[], float] = time.monotonic
    read_joules: Callable[[], float | None] = field(default=lambda: None)
    """Counters of all the job's GPUs added up; None: no counter can be read. Called from any thread."""

    on_step: Callable[[StepRecord], None] | None = None
    """After each iteration: for telemetry and for the emulated GPUs' draw. Must be quick."""

    say: Callable[[str], None] = print
    """One line for a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """One iteration, for whoever watches."""

    model: str
    ended_at_s: float
    step_s: float
    prefill_tokens: int
    decode_tokens: int
    sequences: int
    max_num_seqs: int
