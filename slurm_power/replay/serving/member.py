"""An instance of a replay and what its managers know about it."""

from __future__ import annotations

from dataclasses import dataclass

from slurm_power.llm.instance_clock import InstanceClock
from slurm_power.llm.request_class import RequestClass
from slurm_power.replay.serving.engine import Engine
from slurm_power.replay.serving.servers import Server

_RATE_MEMORY = 0.85


@dataclass(slots=True)
class Member:
    engine: Engine
    gpus: int
    server: Server
    pool: RequestClass
    clock: InstanceClock | None
    ready_s: float
    draining: bool = False
    serving: bool = False


@dataclass(slots=True)
class PoolRate:
    """What arrived at a pool lately."""

    prompt_tokens: int = 0  # since the last epoch
    output_tokens: int = 0
    prompt_tokens_per_s: float = 0.0
    output_tokens_per_s: float = 0.0
    known: bool = False

    def close(self, epoch_s: float) -> None:
        memory = _RATE_MEMORY if self.known else 0.0
        self.known = self.known or self.prompt_tokens > 0
        share = (1.0 - memory) / epoch_s
        self.prompt_tokens_per_s = memory * self.prompt_tokens_per_s + share * self.prompt_tokens
        self.output_tokens_per_s = memory * self.output_tokens_per_s + share * self.output_tokens
        self.prompt_tokens = self.output_tokens = 0


@dataclass(frozen=True, slots=True)
class Totals:
    gpu_s: float
    server_s: float
    host_joules: float
    unallocated_joules: float
    starts: int
    boots: int
    clock_changes: int
