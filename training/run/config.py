"""What a training run is told: one TOML file, one frozen dataclass a table. Pure: this file does not import torch.

Paths are relative to the folder in which the run is started.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from training.errors import require
from training.parallel.plan import ParallelPlan
from training.parallel.plan_rules import TOKEN_TILE
from training.run.config_tables import (
    BatchTable,
    CheckpointTable,
    DataTable,
    ModelTable,
    OptimizerTable,
    ParallelTable,
    PowerTable,
    PrecisionTable,
    RunTable,
)
from training.run.toml_tables import build, read_toml


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    model: ModelTable
    data: DataTable
    batch: BatchTable
    parallel: ParallelTable = field(default_factory=ParallelTable)
    precision: PrecisionTable = field(default_factory=PrecisionTable)
    optimizer: OptimizerTable
    checkpoint: CheckpointTable
    power: PowerTable = field(default_factory=PowerTable)
    run: RunTable

    def __post_init__(self) -> None:
        check_micro_sequences(self, self.batch.micro_sequences)
        if self.parallel.data != "auto":
            check_global_sequences(self, self.parallel.data)

    @property
    def checkpoint_folder(self) -> Path:
        return self.checkpoint.folder or self.run.folder / "checkpoints"

    @property
    def tokens_per_step(self) -> int:
        return self.batch.global_sequences * self.data.sequence_length


def read_config(path: Path) -> RunConfig:
    """Raise ConfigError for anything that a person must mend, in one line."""
    return build(RunConfig, read_toml(path), where=f"{path}:")


def check_micro_sequences(config: RunConfig, micro_sequences: int) -> None:
    tokens = micro_sequences * config.data.sequence_length
    if config.precision.policy == "fp8":
        rule = f"x [data] sequence_length = {tokens} tokens: must be a multiple of {TOKEN_TILE} with FP8"
        require(tokens % TOKEN_TILE == 0, "[batch] micro_sequences", micro_sequences, rule)


def check_global_sequences(config: RunConfig, data: int) -> None:
    unit, batch = data * config.batch.micro_sequences, config.batch.global_sequences
    rule = f"must be a multiple of [parallel] data {data} x micro_sequences {config.batch.micro_sequences} = {unit}"
    require(batch % unit == 0, "[batch] global_sequences", batch, rule)


def parallel_plan(config: RunConfig, world_size: int) -> ParallelPlan:
    """The plan for so many ranks; the model's rules are its `validate`. Raise ConfigError when the ranks do not fit."""
    table = config.parallel
    fixed = table.pipeline * table.tensor
    data = table.data
    if data == "auto":
        rule = f"there are {world_size} ranks, which is no multiple"
        require(world_size >= fixed and world_size % fixed == 0, "[parallel] pipeline x tensor", fixed, rule)
        data = world_size // fixed
    product = f"{table.pipeline} x {table.tensor} x {data} = {fixed * data}"
    require(fixed * data == world_size, "[parallel] pipeline x tensor x data", product, f"there are {world_size} ranks")
    check_global_sequences(config, data)
    return ParallelPlan(
        pipeline=table.pipeline,
        tensor=table.tensor,
        data=data,
        expert=table.expert,
        micro_sequences=config.batch.micro_sequences,
        micro_batches=config.batch.global_sequences // (data * config.batch.micro_sequences),
        schedule=table.schedule,
        zero_stage=table.zero_stage,
    )
