"""What the router saw: arrivals by class, first tokens against their deadlines, tokens. Bounded, whatever comes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from slurm_power.llm.request_class import REQUEST_CLASSES, RequestClass

if TYPE_CHECKING:
    from slurm_power.daemons.router_ticket import Ticket

_KEPT = 2048


@dataclass(slots=True)
class ClassFigures:
    arrived: int = 0
    arrived_tokens: int = 0
    finished: int = 0
    output_tokens: int = 0
    in_time: int = 0
    answered: int = 0
    first_token_s: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    between_tokens_s: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))


class RouterFigures:
    def __init__(self) -> None:
        self.of = {one: ClassFigures() for one in REQUEST_CLASSES}
        self.refused = self.retried = self.broken = self.spilled = 0

    def arrived(self, one: RequestClass, prompt_tokens: int) -> None:
        figures = self.of[one]
        figures.arrived += 1
        figures.arrived_tokens += prompt_tokens

    def first_token(self, one: RequestClass, ttft_s: float, *, due_s: float) -> None:
        figures = self.of[one]
        figures.first_token_s.append(ttft_s)
        figures.answered += 1
        figures.in_time += ttft_s <= due_s

    def finished(self, ticket: Ticket, output_tokens: int, *, at_s: float) -> None:
        figures = self.of[ticket.ask.request_class]
        figures.finished += 1
        figures.output_tokens += output_tokens
        self.spilled += ticket.spilled
        if ticket.first_at_s is not None and output_tokens > 1:
            figures.between_tokens_s.append((at_s - ticket.first_at_s) / (output_tokens - 1))

    def as_json(self) -> dict[str, object]:
        answered = sum(one.answered for one in self.of.values())
        return {
            "refused": self.refused,
            "retried": self.retried,
            "broken": self.broken,
            "spilled": self.spilled,
            "answered": answered,
            "in_time_fraction": sum(one.in_time for one in self.of.values()) / answered if answered else None,
            "classes": {
                one.name: {
                    "arrived": figures.arrived,
                    "finished": figures.finished,
                    "output_tokens": figures.output_tokens,
                    "first_token_p50_s": quantile(figures.first_token_s, 0.5),
                    "first_token_p99_s": quantile(figures.first_token_s, 0.99),
                    "between_tokens_p99_s": quantile(figures.between_tokens_s, 0.99),
                }
                for one, figures in self.of.items()
                if figures.arrived
            },
        }


def quantile(values: deque[float], fraction: float) -> float | None:
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]
