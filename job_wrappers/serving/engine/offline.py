"""Generation without a server: prompts in, tokens out, on the caller's thread. For tests and benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from job_wrappers.serving.engine.config import EngineConfig, EnginePorts
from job_wrappers.serving.engine.host import EngineHost
from job_wrappers.serving.ranks.rank import Rank
from job_wrappers.serving.ranks.seat import Seat
from job_wrappers.serving.ranks.settings import RankSettings
from job_wrappers.serving.ranks.team import Team
from job_wrappers.serving.requests.output import ChoiceOutput, FinishReason, RequestUsage
from job_wrappers.serving.requests.params import SamplingParams
from job_wrappers.serving.requests.request import Request


@dataclass(slots=True)
class Answer:
    """What one request came to; token lists by choice."""

    tokens: dict[int, list[int]] = field(default_factory=dict)
    text: dict[int, str] = field(default_factory=dict)
    reasons: dict[int, FinishReason] = field(default_factory=dict)
    usage: RequestUsage | None = None

    def hear(self, output: ChoiceOutput) -> None:
        self.tokens.setdefault(output.choice, []).extend(output.token_ids)
        self.text[output.choice] = self.text.get(output.choice, "") + output.text
        if output.finish_reason is not None:
            self.reasons[output.choice] = output.finish_reason
        self.usage = output.usage or self.usage


def rank_settings(config: EngineConfig) -> RankSettings:
    return RankSettings(
        paths={model.name: Path(model.path) for model in config.models},
        dtype=config.dtype,
        attention=config.attention,
        block_tokens=config.block_tokens,
        memory_bytes=config.memory_bytes,
        memory_fraction=config.memory_fraction,
    )


def one_rank_host(config: EngineConfig, ports: EnginePorts | None = None, *, device: str = "cpu") -> EngineHost:
    """A host in this process alone; its loop is not started."""
    rank = Rank(rank_settings(config), Seat(), torch.device(device))
    return EngineHost(config, Team(rank), ports or EnginePorts(say=lambda line: None))


class Offline:
    """Turns a host whose loop is not started."""

    def __init__(self, host: EngineHost) -> None:
        self.host = host
        self._count = 0

    def submit(self, prompt: Sequence[int], params: SamplingParams) -> Answer:
        answer = Answer()
        self._count += 1
        engine = self.host.engines[self.host.active_name]
        engine.submit(
            Request(
                request_id=f"offline-{self._count}",
                model=engine.name,
                prompt_token_ids=tuple(prompt),
                params=params,
                arrived_at_s=self.host.ports.now_s(),
            ),
            answer.hear,
        )
        return answer

    def step(self) -> bool:
        return self.host.iterate()

    def generate(self, prompts: Sequence[Sequence[int]], params: SamplingParams) -> list[Answer]:
        answers = [self.submit(prompt, params) for prompt in prompts]
        while self.step():
            pass
        return answers
