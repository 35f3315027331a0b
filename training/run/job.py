"""What a config asks of so many ranks, checked as far as one rank can alone: before anybody waits for anybody."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from training.data.text import RunText, open_text
from training.errors import ConfigError, require
from training.model.config import ModelConfig
from training.model.hf_folder import load_hf
from training.model.presets import preset
from training.parallel.plan import ParallelPlan
from training.run.config import RunConfig, check_micro_sequences, parallel_plan


@dataclass(frozen=True, slots=True)
class Job:
    config: RunConfig
    plan: ParallelPlan
    model: ModelConfig
    weights: Any
    """Whole tensors to start from, by Hugging Face name; None: random ones."""

    text: RunText

    def check_micro_batch(self, micro_sequences: int) -> None:
        """Raise ConfigError for a micro-batch that this job cannot run."""
        check_micro_sequences(self.config, micro_sequences)
        of_one_rank = self.config.batch.global_sequences // self.plan.data
        rule = f"must divide {of_one_rank}, the sequences of one data rank"
        require(micro_sequences >= 1 and of_one_rank % micro_sequences == 0, "micro_sequences", micro_sequences, rule)
        plan = replace(self.plan, micro_sequences=micro_sequences, micro_batches=of_one_rank // micro_sequences)
        plan.validate(self.model, self.config.data.sequence_length, policy=self.config.precision.policy)


def check_job(config: RunConfig, world_size: int) -> Job:
    """Raise ConfigError for anything that a person must mend."""
    plan = parallel_plan(config, world_size)
    model, weights = _model(config)
    data = config.data
    plan.validate(model, data.sequence_length, policy=config.precision.policy, ranks=world_size)
    rule = f"the model was made for at most {model.max_position_embeddings}"
    fits = data.sequence_length <= model.max_position_embeddings
    require(fits, "data.sequence_length", data.sequence_length, rule)
    text = open_text(
        data.dataset,
        sequence_length=data.sequence_length,
        global_sequences=config.batch.global_sequences,
        vocabulary_size=model.vocab_size,
        seed=config.run.seed,
        held_out=data.held_out,
        held_out_fraction=data.held_out_fraction,
        evaluate_batches=data.evaluate_batches,
    )
    return Job(config, plan, model, weights, text)


def _model(config: RunConfig) -> tuple[ModelConfig, Any]:
    table = config.model
    if table.preset is not None:
        return preset(table.preset), None
    assert table.folder is not None, "the table checks that one of the two is given"
    if table.from_scratch:
        return ModelConfig.from_hf(_config_json(table.folder)), None
    return load_hf(table.folder)


def _config_json(folder: Path) -> Any:
    try:
        return json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as cause:
        raise ConfigError(f"model.folder = {folder}: config.json cannot be read: {cause}") from cause
