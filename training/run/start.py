"""Makes a rank ready to train: process groups, engine, and where to go on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from training.checkpoint.agreement import Agreement, GlooAgreement
from training.checkpoint.engine_state import load_state, load_weights
from training.checkpoint.folder import clean
from training.checkpoint.load import StoredState, find_checkpoint
from training.checkpoint.manifest import Manifest, Progress
from training.errors import ConfigError
from training.optim import OptimizerSettings
from training.parallel.build import build_engine
from training.parallel.groups import open_groups
from training.run.config import RunConfig
from training.run.job import Job
from training.run.listener import StepListener
from training.run.schedule import learning_rate
from training.run.shared_folder import check_shared


@dataclass(slots=True)
class Ready:
    """A rank that can train."""

    job: Job
    engine: Any
    agreement: Agreement
    step: int
    """Steps done."""

    consumed: int
    """Sequences of the run's order that were trained on."""

    latest: Path | None
    """The checkpoint that this start comes from."""

    notes: list[tuple[str, str]]
    """Events to tell: kind and text."""

    def manifest(self, step: int) -> Manifest:
        """What a checkpoint at the end of step `step` says, but for its files."""
        config = self.job.config
        progress = Progress(
            step=step,
            sequences_consumed=self.consumed,
            learning_rate=learning_rate(max(0, step - 1), config.optimizer),
            seed=config.run.seed,
            global_sequences=config.batch.global_sequences,
            sequence_length=config.data.sequence_length,
        )
        return Manifest(
            progress=progress,
            model=self.job.model.to_hf(),
            plan=asdict(self.job.plan),
            config=asdict(config),
            files=(),
            written_at_unix_s=0.0,
        )


def make_ready(job: Job, listener: StepListener, *, fresh: bool, progress: Callable[[str], None]) -> Ready:
    """Collective. `fresh`: pass over checkpoints. `progress`: told what begins now.

    Raise ConfigError, StorageError, Unavailable.
    """
    config = job.config
    progress("opening the process groups")
    timeout_s = 2.0 * config.run.watchdog_s  # the watchdog speaks first
    context = open_groups(job.plan, timeout_s=timeout_s)
    agreement = GlooAgreement(timeout_s=timeout_s)
    check_shared(config.run.folder, agreement, key="run.folder")
    check_shared(config.checkpoint_folder, agreement, key="checkpoint.folder")
    if agreement.rank == 0:
        clean(config.checkpoint_folder)
    progress("looking for a checkpoint")
    latest, warnings = (None, []) if fresh else find_checkpoint(config.checkpoint_folder, agreement)
    progress("building the model")
    engine = build_engine(
        job.model,
        job.plan,
        config.precision.chosen(),
        optimizer_settings(config),
        context=context,
        sequence_length=config.data.sequence_length,
        seed=config.run.seed,
        gradient_clipping=config.optimizer.gradient_clipping,
        measure_layers=config.parallel.measure_layers,
        on_instruction=listener.on_instruction,
    )
    notes = [("checkpoint_fallback", warning) for warning in warnings]
    ready = Ready(job, engine, agreement, step=0, consumed=0, latest=latest, notes=notes)
    progress("loading the weights")
    load(ready)
    return ready


def load(ready: Ready) -> None:
    """Go on from `ready.latest`, or from given weights. Collective. Raise ConfigError, StorageError."""
    if ready.latest is None:
        if ready.job.weights is not None:
            load_weights(ready.engine, ready.job.weights)
        return
    state = StoredState(ready.latest)
    ready.notes.append(("resumed", f"going on from {ready.latest.name}"))
    _require_same_model(ready, state)
    load_state(ready.engine, state)
    ready.step, ready.consumed = state.manifest.progress.step, state.manifest.progress.sequences_consumed
    for key, now in (("seed", ready.job.config.run.seed), ("sequence_length", ready.job.config.data.sequence_length)):
        then = getattr(state.manifest.progress, key)
        if then != now:
            text = f"{key} = {now}, the checkpoint has {then}: text comes in another order from here on"
            ready.notes.append(("resumed", text))


def _require_same_model(ready: Ready, state: StoredState) -> None:
    now, then = ready.job.model.to_hf(), state.manifest.model
    differing = sorted(key for key in {*now, *then} if now.get(key) != then.get(key))
    if differing:
        key = differing[0]
        raise ConfigError(f"model: {key} = {now.get(key)}, checkpoint {state.checkpoint} has {then.get(key)}")


def optimizer_settings(config: RunConfig) -> OptimizerSettings:
    table = config.optimizer
    return OptimizerSettings(
        kind=table.kind,
        learning_rate=table.learning_rate,
        weight_decay=table.weight_decay,
        beta1=table.beta1,
        beta2=table.beta2,
        router_bias_speed=table.router_bias_speed,
    )
