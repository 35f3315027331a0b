"""Arrivals foreseen per class: a weekly template, how the last hours differ from it, and how far that was off. Pure.

Every class has the same shape over the week as the whole and a share of it that moves slowly: single classes are too
thin for templates of their own.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from slurm_power.llm.operating_point import Load
from slurm_power.llm.request_class import REQUEST_CLASSES, RequestClass

_SMOOTHED_SLOTS = 6
_HELD_BACK_SLOTS = 12
"""What is compared with the template must not be in it yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrivalConfig:
    slot_s: float = 300.0
    slots_per_week: int = 2016
    quantile: float = 0.8
    """Of past errors: so much of the time the load was no higher than foreseen."""

    recent_slots: int = 3
    """Over which the load is compared with the template."""

    errors_kept: int = 576
    share_memory: float = 0.02
    """How much of a class's share one slot moves."""

    template_memory: float = 0.3
    """How much of the template one week moves."""

    unknown_growth: float = 1.25
    """Above the recent load, while no errors are known."""


class ArrivalForecast:
    def __init__(self, config: ArrivalConfig, *, template: Mapping[int, float] | None = None) -> None:
        """`template`: slot of the week -> tokens per second, from weeks before."""
        self.config = config
        self._template = dict(template or {})
        self._recent: deque[tuple[int, float]] = deque(maxlen=config.recent_slots)
        self._shares: dict[RequestClass, Load] = {}
        self._arrived: deque[float] = deque()
        self._errors: list[float] = []
        self._asked: dict[int, float] = {}
        self._held_back: deque[tuple[int, float]] = deque()

    def learn(self, slot: int, seen: Mapping[RequestClass, Load]) -> None:
        """A slot has ended; slots are numbered from the beginning of a week on."""
        tokens = _tokens(seen)
        foreseen = self._asked.pop(slot, None)
        if foreseen is not None and foreseen > 0.0:
            self._add_error(tokens / foreseen)
        self._recent.append((slot, tokens))
        if tokens:  # shares of nothing are not known
            self._learn_shares({one: seen.get(one, Load()).times(1.0 / tokens) for one in REQUEST_CLASSES})
        self._held_back.append((slot, tokens))
        while self._held_back and self._held_back[0][0] < slot - _HELD_BACK_SLOTS:
            self._into_template(*self._held_back.popleft())

    def _learn_shares(self, shares: Mapping[RequestClass, Load]) -> None:
        memory = self.config.share_memory if self._shares else 1.0
        for one, share in shares.items():
            before = self._shares.get(one, share)
            self._shares[one] = before.times(1.0 - memory).plus(share.times(memory))

    def _into_template(self, slot: int, tokens: float) -> None:
        place = slot % self.config.slots_per_week
        usual = self._template.get(place, tokens)
        self._template[place] = usual + self.config.template_memory * (tokens - usual)

    def foresee(self, first_slot: int, slots: int) -> dict[RequestClass, Load]:
        """The highest of the slots, at the config's quantile."""
        middles = [self._middle(slot) for slot in range(first_slot, first_slot + slots)]
        for slot, middle in zip(range(first_slot, first_slot + slots), middles, strict=True):
            self._asked.setdefault(slot, middle)
        tokens = max(middles) * self._margin()
        return {one: share.times(tokens) for one, share in self._shares.items()}

    def recent_tokens_per_s(self) -> float:
        return sum(tokens for _, tokens in self._recent) / max(1, len(self._recent))

    def _middle(self, slot: int) -> float:
        recent = self.recent_tokens_per_s()
        there = self._template_at(slot)
        then = [self._template_at(one) for one, _ in self._recent]
        if there is None or not then or any(one is None for one in then):
            return recent
        usual = sum(one for one in then if one is not None) / len(then)
        return recent * there / usual if usual else recent

    def _template_at(self, slot: int) -> float | None:
        """Smoothed: a single slot of a single week is noise."""
        near = [
            self._template.get((slot + off) % self.config.slots_per_week)
            for off in range(-_SMOOTHED_SLOTS, _SMOOTHED_SLOTS + 1)
        ]
        known = [one for one in near if one is not None]
        return sum(known) / len(known) if len(known) > _SMOOTHED_SLOTS else None

    def _margin(self) -> float:
        if len(self._errors) < 12:
            return self.config.unknown_growth
        rank = min(len(self._errors) - 1, int(self.config.quantile * len(self._errors)))
        return max(1.0, self._errors[rank])

    def _add_error(self, ratio: float) -> None:
        self._arrived.append(ratio)
        insort(self._errors, ratio)
        if len(self._arrived) > self.config.errors_kept:
            self._errors.remove(self._arrived.popleft())


def _tokens(seen: Mapping[RequestClass, Load]) -> float:
    return sum(load.prompt_tokens_per_s + load.output_tokens_per_s for load in seen.values())
