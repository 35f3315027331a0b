"""What FP8 costs in loss: runs paired by seed in FP8, BF16 and FP32, on held-out text they never saw.

Each run is one rank of `slurm-power-train run` over the Python standard library's sources, with a cosine decay to
nearly zero. The gap of a seed is (loss - loss of BF16) / loss of BF16. FP32 is the control: what merely rounding less
does to the same curve. As many runs as there are cores go side by side; with --folder, finished ones are kept. For a
night: --seeds 10 --steps 4000 --sequences 8.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from training.data.prepare import prepare
from training.run.records import read_steps

POLICIES = ("bf16", "fp8", "fp32")
DEEPSEEK_V3_BOUND = 0.0025
"""Relative loss error that the DeepSeek-V3 report (arXiv 2412.19437, 3.3) claims at 16 B and 230 B parameters."""

_SOURCES = ("*.py", "json/*.py", "email/*.py", "http/*.py", "xml/*/*.py", "concurrent/*/*.py", "importlib/*.py")
_HELD_OUT = ("asyncio/*.py", "unittest/*.py", "multiprocessing/*.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    seeds: Sequence[int] = (0, 1, 2, 3, 4)
    steps: int = 300
    sequence_length: int = 128
    global_sequences: int = 4
    preset: str = "tiny-v3"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Relative gaps to BF16, paired by seed."""

    by_seed: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.by_seed)

    @property
    def standard_error(self) -> float:
        """NaN for one seed: one run says nothing of its scatter."""
        if len(self.by_seed) < 2:
            return math.nan
        return statistics.stdev(self.by_seed) / math.sqrt(len(self.by_seed))

    @property
    def upper_bound(self) -> float:
        """One-sided 95 % bound of the mean, by Student's t."""
        return self.mean + _T95[min(len(self.by_seed), len(_T95)) - 1] * self.standard_error


_T95 = (math.nan, 6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833)
"""Student's t, 95 % one-sided, for 1, 2, 3, ... values."""


def measure(folder: Path, scale: Scale, *, say: Callable[[str], None]) -> dict[str, object]:
    """Losses by policy and seed, the gaps, and whether FP8's is shown to be below DeepSeek-V3's bound."""
    dataset, held_out = _text(folder)
    jobs = [(policy, seed) for seed in scale.seeds for policy in POLICIES]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        futures = {
            job: pool.submit(_held_out_loss, folder, job, scale, dataset=dataset, held_out=held_out) for job in jobs
        }
        losses: dict[str, dict[int, float]] = {policy: {} for policy in POLICIES}
        for (policy, seed), future in futures.items():
            losses[policy][seed] = future.result()
            say(f"seed {seed} {policy}: held-out loss {losses[policy][seed]:.4f}")
    fp8, fp32 = gap(losses["fp8"], losses["bf16"]), gap(losses["fp32"], losses["bf16"])
    return {
        "fp8_loss_gap_mean": fp8.mean,
        "fp8_loss_gap_se": fp8.standard_error,
        "fp8_loss_gap_upper_bound": fp8.upper_bound,
        "fp8_loss_gap_below_bound": fp8.upper_bound < DEEPSEEK_V3_BOUND,
        "fp32_loss_gap_mean": fp32.mean,
        "fp32_loss_gap_se": fp32.standard_error,
        "held_out_losses": losses,
        "steps": scale.steps,
        "tokens_per_step": scale.global_sequences * scale.sequence_length,
        "model": scale.preset,
    }


def gap(losses: Mapping[int, float], baseline: Mapping[int, float]) -> Gap:
    """Relative, by seed."""
    return Gap(by_seed=tuple((losses[seed] - baseline[seed]) / baseline[seed] for seed in sorted(baseline)))


def _text(folder: Path) -> tuple[Path, Path]:
    library = Path(sysconfig.get_paths()["stdlib"])
    folders = []
    for name, patterns in (("text", _SOURCES), ("held-out", _HELD_OUT)):
        files = sorted(file for pattern in patterns for file in library.glob(pattern))
        if not (folder / name).exists():
            prepare(files, folder / name, tokenizer="bytes")
        folders.append(folder / name)
    return folders[0], folders[1]


def _held_out_loss(folder: Path, job: tuple[str, int], scale: Scale, *, dataset: Path, held_out: Path) -> float:
    policy, seed = job
    run = folder / f"{scale.preset}-{scale.steps}x{scale.global_sequences}-{policy}-{seed}"
    config = folder / f"{run.name}.toml"
    config.write_text(_config(scale, run, policy=policy, seed=seed, dataset=dataset, held_out=held_out))
    if not _finished(run, scale):
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "job_wrappers.train", "run", str(config)]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True)
        if ended.returncode != 0:
            raise RuntimeError(f"{run.name} ended with {ended.returncode}: {ended.stderr[-2000:]}")
    loss = read_steps(run)[-1].held_out_loss
    if loss is None:
        raise RuntimeError(f"{run.name}: its last step was not evaluated")
    return loss


def _finished(run: Path, scale: Scale) -> bool:
    steps = read_steps(run) if run.exists() else []
    return bool(steps) and steps[-1].step == scale.steps and steps[-1].held_out_loss is not None


def _config(scale: Scale, run: Path, *, policy: str, seed: int, dataset: Path, held_out: Path) -> str:
    return f"""
[model]
preset = "{scale.preset}"
[data]
dataset = "{dataset}"
held_out = "{held_out}"
sequence_length = {scale.sequence_length}
evaluate_every_steps = {scale.steps}
evaluate_batches = 16
[batch]
global_sequences = {scale.global_sequences}
micro_sequences = {scale.global_sequences}
[precision]
policy = "{policy}"
[optimizer]
learning_rate = 1e-3
warmup_steps = {max(1, scale.steps // 20)}
steps = {scale.steps}
final_learning_rate_fraction = 0.01
gradient_clipping = 1.0
[checkpoint]
every_steps = {scale.steps}
keep = 1
[run]
folder = "{run}"
seed = {seed}
log_every_steps = {scale.steps}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=Scale().steps)
    parser.add_argument("--seeds", type=int, default=len(Scale().seeds))
    parser.add_argument("--sequences", type=int, default=Scale().global_sequences, help="of one step")
    parser.add_argument("--folder", type=Path, help="keep the runs here, and go on from those that are there")
    options = parser.parse_args()
    scale = Scale(seeds=range(options.seeds), steps=options.steps, global_sequences=options.sequences)
    with tempfile.TemporaryDirectory(prefix="slurm-power-loss-gap-") as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        print(json.dumps(measure(folder, scale, say=print), indent=2))


if __name__ == "__main__":
    main()
