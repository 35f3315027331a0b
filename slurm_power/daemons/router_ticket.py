"""A request as the router knows it, and the place that it holds at an instance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from slurm_power.daemons.pool_roster import PoolInstance
from slurm_power.llm.routing import Ask

if TYPE_CHECKING:
    from slurm_power.daemons.router_desk import Desk


class NoPlace(Exception):
    """Nobody can take it in time. `status` 429: too many ask; 503: nothing serves."""

    def __init__(self, text: str, *, status: int, retry_after_s: float) -> None:
        super().__init__(text)
        self.status, self.retry_after_s = status, retry_after_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the router knows of a request."""

    model: str
    caller: str
    prompt_tokens: int
    max_tokens: int | None
    arrived_at_s: float


class Ticket:
    """A place at one instance, held until `done`."""

    __slots__ = ("_desk", "_open", "ask", "asked", "due_s", "first_at_s", "instance", "spilled")

    def __init__(self, desk: Desk, asked: Asked, ask: Ask, instance: PoolInstance, *, spilled: bool) -> None:
        self._desk, self.asked, self.ask, self.instance, self.spilled = desk, asked, ask, instance, spilled
        self._open = True
        self.first_at_s: float | None = None
        self.due_s = asked.arrived_at_s + desk.slo.ttft_s[ask.request_class.prompt]
        instance.requests += 1
        instance.held_tokens += ask.context_tokens
        instance.prefill_tokens += ask.prompt_tokens
        instance.asked_tokens += ask.prompt_tokens
        instance.unbegun.add(self)

    def began(self) -> None:
        """Its first token is there."""
        if self.first_at_s is None:
            self.first_at_s = self._desk.now_s()
            self.instance.prefill_tokens -= self.ask.prompt_tokens
            self.instance.unbegun.discard(self)
            self._desk.on_first(self, self.first_at_s)

    def done(self, *, output_tokens: int | None = None, cut_off: bool = False) -> None:
        """Safe to call again. `output_tokens` None: it did not come to an end, and teaches nothing."""
        if not self._open:
            return
        self._open = False
        if self.first_at_s is None:
            self.instance.prefill_tokens -= self.ask.prompt_tokens
            self.instance.unbegun.discard(self)
        self.instance.requests -= 1
        self.instance.held_tokens -= self.ask.context_tokens
        self.instance.served += output_tokens is not None
        self._desk.on_done(self, output_tokens, cut_off=cut_off)
