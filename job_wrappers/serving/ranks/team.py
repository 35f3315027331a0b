"""All ranks of the model as rank 0 sees them: one call for a command, one for a step. One rank is called directly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from job_wrappers.serving.errors import RankLost, ServingError
from job_wrappers.serving.ranks.channel import Channels
from job_wrappers.serving.ranks.commands import Command, Step, Stop
from job_wrappers.serving.ranks.rank import FAILURES, Rank
from job_wrappers.serving.steps.step_input import StepInput

_WORD_S = 2.0
"""A collective may fail a moment before we hear which rank is gone."""


class Team:
    def __init__(self, rank: Rank, channels: Channels | None = None) -> None:
        self.rank = rank
        self._channels = channels

    @classmethod
    def gather(cls, rank: Rank, store: Any, *, on_lost: Callable[[str], None]) -> Team:
        """`store` as `open_groups` returned it; None with one rank. `on_lost` may come from any thread."""
        size = rank.seat.world_size
        return cls(rank, Channels(size, store, on_lost=on_lost) if size > 1 else None)

    def call(self, command: Command) -> list[Any]:
        """What each rank answers, in rank order; blocks until the last did. Raises ServingError naming the rank that
        could not; the others have done it then."""
        number = self._channels.tell(command) if self._channels is not None else 0
        failed: Exception | None = None
        own: object = None
        try:
            own = self.rank.do(command)
        except FAILURES as error:
            failed = error
        answers = self._channels.answers(number) if self._channels is not None else []
        if isinstance(failed, ServingError):
            raise failed
        if failed is not None:
            raise ServingError(f"{type(command).__name__}: {failed}") from failed
        for rank, answer in enumerate(answers, start=1):
            if answer.failed is not None:
                raise ServingError(f"rank {rank}: {answer.failed}")
        return [own, *(answer.value for answer in answers)]

    def run(self, model: str, step: StepInput) -> Tensor | None:
        """The logits of one iteration. Raises RankLost when a rank is gone."""
        if self._channels is None:
            return self.rank.run(model, step)
        self._channels.tell(Step(model, step))
        try:
            return self.rank.run(model, step)
        except RuntimeError as error:
            raise RankLost(self._channels.why(_WORD_S) or f"a rank does not answer: {error}") from error

    def stop(self) -> None:
        if self._channels is not None:
            self._channels.close()
            self._channels.tell(Stop())
