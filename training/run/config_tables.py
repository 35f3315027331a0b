"""The tables of a training run's TOML file. Each keeps its own rules; config.py keeps those between them. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from training.errors import require
from training.precision import PrecisionPolicy, policy


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTable:
    preset: str | None = None
    """A model by name: see `slurm-power-train plan --help`."""

    folder: Path | None = None
    """A Hugging Face folder: its config.json gives the sizes, its weights the start."""

    from_scratch: bool = False
    """Take only the sizes from `folder` and start from random weights."""

    def __post_init__(self) -> None:
        both = self.preset is not None and self.folder is not None
        require(not both, "preset", self.preset, f"give preset or folder, not both (folder = {self.folder})")
        require(self.preset is not None or self.folder is not None, "preset", "(none)", "give preset or folder")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataTable:
    dataset: Path
    """What `slurm-power-train prepare` wrote."""

    sequence_length: int
    """Tokens of one sequence."""

    held_out: Path | None = None
    """Another dataset, never trained on."""

    held_out_fraction: float = 0.0
    """Or: the last part of `dataset`, kept from training."""

    evaluate_every_steps: int = 100
    evaluate_batches: int = 1
    """Global batches of held-out text in one evaluation, always the same ones."""

    def __post_init__(self) -> None:
        require(self.sequence_length >= 1, "sequence_length", self.sequence_length, "must be at least 1")
        fraction = self.held_out_fraction
        require(0.0 <= fraction < 1.0, "held_out_fraction", fraction, "must be in [0, 1)")
        both = self.held_out is not None and fraction > 0.0
        require(
            not both, "held_out_fraction", fraction, f"give held_out or held_out_fraction, not both ({self.held_out})"
        )
        require(self.evaluate_every_steps >= 1, "evaluate_every_steps", self.evaluate_every_steps, "must be at least 1")
        require(self.evaluate_batches >= 1, "evaluate_batches", self.evaluate_batches, "must be at least 1")

    @property
    def evaluates(self) -> bool:
        return self.held_out is not None or self.held_out_fraction > 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchTable:
    global_sequences: int
    """Sequences of one optimiser step, whatever the plan."""

    micro_sequences: int
    """Sequences in one forward pass of one data rank; may be changed while the job runs."""

    def __post_init__(self) -> None:
        require(self.global_sequences >= 1, "global_sequences", self.global_sequences, "must be at least 1")
        require(self.micro_sequences >= 1, "micro_sequences", self.micro_sequences, "must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelTable:
    pipeline: int = 1
    tensor: int = 1
    data: int | Literal["auto"] = "auto"
    """"auto": all ranks that pipeline and tensor leave."""

    expert: int = 1
    """Data ranks that share one set of routed experts."""

    schedule: Literal["1f1b", "dualpipev"] = "1f1b"
    zero_stage: Literal[1, 2, 3] = 1
    measure_layers: bool = False
    """Cut the pipeline by measured times of the layers instead of their counted work."""

    def __post_init__(self) -> None:
        for key in ("pipeline", "tensor", "expert"):
            require(getattr(self, key) >= 1, key, getattr(self, key), "must be at least 1")
        require(self.data == "auto" or self.data >= 1, "data", self.data, 'must be at least 1, or "auto"')


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionTable:
    policy: Literal["fp8", "bf16", "fp32"] = "fp8"
    backend: Literal["auto", "emulate", "scaled_mm", "triton"] = "auto"
    power_of_two_scales: bool = False
    weight_gradient: Literal["fp8", "bf16"] = "fp8"

    def chosen(self) -> PrecisionPolicy:
        return policy(
            self.policy,
            backend=self.backend,
            power_of_two_scales=self.power_of_two_scales,
            weight_gradient=self.weight_gradient,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerTable:
    kind: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float
    """At its highest, after the warm-up."""

    warmup_steps: int = 0
    steps: int
    """Of the whole run; the learning rate falls over them along a cosine."""

    final_learning_rate_fraction: float = 0.1
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    gradient_clipping: float
    """Largest norm of all gradients together; 0: no limit. No default: DeepSpeed's own, 1.0, is easily missed."""

    router_bias_speed: float = 0.001

    def __post_init__(self) -> None:
        require(0.0 < self.learning_rate < math.inf, "learning_rate", self.learning_rate, "must be positive")
        require(self.steps >= 1, "steps", self.steps, "must be at least 1")
        within = 0 <= self.warmup_steps <= self.steps
        require(within, "warmup_steps", self.warmup_steps, f"must be within 0 and steps = {self.steps}")
        fraction = self.final_learning_rate_fraction
        require(0.0 <= fraction <= 1.0, "final_learning_rate_fraction", fraction, "must be in [0, 1]")
        require(self.weight_decay >= 0.0, "weight_decay", self.weight_decay, "must not be negative")
        require(0.0 <= self.beta1 < 1.0, "beta1", self.beta1, "must be in [0, 1)")
        require(0.0 <= self.beta2 < 1.0, "beta2", self.beta2, "must be in [0, 1)")
        clipping = self.gradient_clipping
        require(0.0 <= clipping < math.inf, "gradient_clipping", clipping, "must be 0 (no limit) or positive")
        require(self.router_bias_speed >= 0.0, "router_bias_speed", self.router_bias_speed, "must not be negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointTable:
    folder: Path | None = None
    """On storage that all nodes share. Not given: "checkpoints" in run.folder."""

    every_steps: int
    keep: int = 2
    """Complete checkpoints that stay; older ones are deleted."""

    asynchronous: bool = True
    """Train on while a background thread writes; costs a copy of what the rank holds in CPU memory."""

    def __post_init__(self) -> None:
        require(self.every_steps >= 1, "every_steps", self.every_steps, "must be at least 1")
        require(self.keep >= 1, "keep", self.keep, "must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerTable:
    grace_s: float = 30.0
    """From the signal to the end of the process. 30 s is Slurm's own KillWait; with sbatch --signal=USR1@N, N."""

    requeue_exit_code: int = 75
    """EX_TEMPFAIL of sysexits.h; slurm.conf's RequeueExit must name it."""

    ramp_watts_per_s: float | None = None
    """After a start, the whole job's mean power rises no faster. Not given: no ramp."""

    idle_watts: float | None = None
    """Of the whole job, all its nodes, between steps. Needed for a ramp."""

    full_watts: float | None = None
    """Of the whole job while it trains. Needed for a ramp."""

    def __post_init__(self) -> None:
        require(self.grace_s > 0.0, "grace_s", self.grace_s, "must be positive")
        code = self.requeue_exit_code
        require(1 <= code <= 125 and code not in (3, 5, 6), "requeue_exit_code", code, "must be in 1..125, not 3, 5, 6")
        if self.ramp_watts_per_s is None:
            return
        rate = self.ramp_watts_per_s
        require(rate > 0.0, "ramp_watts_per_s", rate, "must be positive; leave it out for no ramp")
        idle, full = self.idle_watts, self.full_watts
        require(idle is not None, "idle_watts", "(none)", f"needed with ramp_watts_per_s = {rate}")
        require(full is not None, "full_watts", "(none)", f"needed with ramp_watts_per_s = {rate}")
        if idle is not None and full is not None:
            require(idle >= 0.0, "idle_watts", idle, "must not be negative")
            require(full > idle, "full_watts", full, f"must be above idle_watts = {idle}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTable:
    folder: Path
    """steps.jsonl, events.jsonl, control.json and report.html of this run; on storage that all nodes share."""

    seed: int = 0
    """Of the first weights and of the order of the text."""

    log_every_steps: int = 1
    watchdog_s: float = 600.0
    """A rank without progress for so long ends with exit code 6. Must exceed the longest step, save or evaluation."""

    peak_flops_per_s: float | None = None
    """Of one GPU, in the precision that utilisation is to be quoted against; not given: no utilisation is reported."""

    def __post_init__(self) -> None:
        require(self.log_every_steps >= 1, "log_every_steps", self.log_every_steps, "must be at least 1")
        require(self.watchdog_s > 0.0, "watchdog_s", self.watchdog_s, "must be positive")
        peak = self.peak_flops_per_s
        require(peak is None or peak > 0.0, "peak_flops_per_s", peak, "must be positive")
