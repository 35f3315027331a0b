"""A config to start from, and what a config means, as text for a person."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from training.run.config import RunConfig

_EXAMPLE = """\
# slurm-power-train: one training run. Paths are relative to the folder where the run is started.

[model]
preset = "tiny-v3"              # or: folder = "a Hugging Face folder" (its sizes and weights)

[data]
dataset = "data/train"          # made by: slurm-power-train prepare FILES --out data/train
sequence_length = 256           # tokens
held_out_fraction = 0.02        # or: held_out = "data/held-out"
evaluate_every_steps = 100
evaluate_batches = 1            # global batches of held-out text in one evaluation

[batch]
global_sequences = 32           # of one optimiser step, whatever the plan
micro_sequences = 4             # of one forward pass; slurm-power-train steer changes it while the job runs

[parallel]                      # ranks = pipeline x tensor x data
pipeline = 1
tensor = 1
data = "auto"                   # all ranks that are left
expert = 1                      # data ranks that share one set of experts
schedule = "1f1b"               # or "dualpipev"
zero_stage = 1                  # 2 and 3 only without a pipeline

[precision]
policy = "fp8"                  # or "bf16", "fp32"
backend = "auto"                # "emulate", "scaled_mm", "triton"
power_of_two_scales = false
weight_gradient = "fp8"         # or "bf16"

[optimizer]
kind = "adamw"                  # or "sgd"
learning_rate = 1e-3
warmup_steps = 100
steps = 1000
final_learning_rate_fraction = 0.1
weight_decay = 0.1
beta1 = 0.9
beta2 = 0.95
gradient_clipping = 1.0         # largest gradient norm; 0: no limit

[checkpoint]
every_steps = 100
keep = 2
asynchronous = true             # write while training goes on

[power]
grace_s = 30                    # from SIGUSR1 or SIGTERM to the end of the process
requeue_exit_code = 75          # RequeueExit in slurm.conf
# ramp_watts_per_s = 500        # after a start the job's power rises no faster; needs the next two
# idle_watts = 800
# full_watts = 5600

[run]
folder = "runs/example"         # on storage that all nodes share
seed = 0
log_every_steps = 1
watchdog_s = 600                # without progress for so long, a rank ends with exit code 6
# peak_flops_per_s = 989e12     # of one GPU; utilisation is quoted against it (H100 SXM, dense BF16)
"""


def example_config() -> str:
    return _EXAMPLE


def explain(config: RunConfig) -> str:
    """Every value that holds, those not given included, and what follows from them."""
    lines: list[str] = []
    for table in fields(config):
        lines += [f"[{table.name}]"]
        owner = getattr(config, table.name)
        lines += [f"  {field.name} = {_value(getattr(owner, field.name))}" for field in fields(owner)]
    return "\n".join([*lines, "", *_consequences(config)]) + "\n"


def _consequences(config: RunConfig) -> list[str]:
    steps, tokens = config.optimizer.steps, config.tokens_per_step
    lines = [
        f"{steps} steps of {tokens:,} tokens: {steps * tokens:,} tokens in all",
        f"checkpoints in {config.checkpoint_folder}, every {config.checkpoint.every_steps} steps",
    ]
    if config.data.evaluates:
        evaluated = config.data.evaluate_batches * tokens
        lines.append(f"held-out loss of {evaluated:,} tokens every {config.data.evaluate_every_steps} steps")
    power = config.power
    if power.ramp_watts_per_s is not None and power.full_watts is not None and power.idle_watts is not None:
        ramp_s = (power.full_watts - power.idle_watts) / power.ramp_watts_per_s
        lines.append(f"power rises from {power.idle_watts:g} W to {power.full_watts:g} W in {ramp_s:.0f} s")
    return lines


def _value(value: Any) -> str:
    if value is None:
        return "(not given)"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
