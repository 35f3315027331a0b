"""How long an answer will be: learnt per model, caller and prompt size, with an error that is measured, not assumed.

A point comes from means of logarithms, each shrunk to the coarser one above it while it has seen little. The bounds
come from how far points were off (split conformal: each error was taken before the point learnt from that answer),
kept apart by the size of the point, because long answers are foreseen less well than short ones.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any

from slurm_power.errors import ConfigError
from slurm_power.llm.request_class import Size, output_size, prompt_size

_SHRINK = 4.0
"""Answers after which a finer mean weighs as much as the coarser one above it."""

_MEMORY = 200.0
"""Answers over which a mean forgets: callers change what they ask."""

_ERRORS_KEPT, _ERRORS_ENOUGH = 512, 20
_MOST_CALLERS, _MOST_MODELS = 4096, 64
_MOST_NAME = 200
_FIRST_GUESS_TOKENS = 200.0
_UNKNOWN_FACTOR = 4.0
"""The bound before enough errors were seen: so many times the point."""

_LARGEST_LOG = 50.0


@dataclass(frozen=True, slots=True)
class OutputLength:
    median_tokens: float
    upper_tokens: float  # not exceeded by the asked share of answers


class OutputLengths:
    """Bounded: the callers and models that were heard of last. Plain numbers in and out of JSON."""

    def __init__(self, *, most_callers: int = _MOST_CALLERS) -> None:
        self._most_callers = most_callers
        self._models: OrderedDict[str, _Model] = OrderedDict()
        self._callers: OrderedDict[tuple[str, str], list[_Mean]] = OrderedDict()

    def predict(
        self, *, model: str, caller: str, prompt_tokens: int, max_tokens: int | None = None, upper_fraction: float = 0.9
    ) -> OutputLength:
        point = self._point(model[:_MOST_NAME], caller[:_MOST_NAME], prompt_size(prompt_tokens))
        known = self._models.get(model[:_MOST_NAME])
        errors = None if known is None else known.errors[output_size(math.exp(point))]
        if errors is None or len(errors) < _ERRORS_ENOUGH:
            median, upper = math.exp(point), math.exp(point) * _UNKNOWN_FACTOR
        else:
            median = math.exp(point + errors.quantile(0.5))
            upper = math.exp(point + errors.quantile(upper_fraction))
        most = math.inf if max_tokens is None else max(1, max_tokens)
        return OutputLength(min(median, most), min(max(median, upper), most))

    def learn(self, *, model: str, caller: str, prompt_tokens: int, output_tokens: int, cut_off: bool = False) -> None:
        """`cut_off`: the answer reached its max_tokens, so it says only that it would have been at least so long."""
        model, caller, size = model[:_MOST_NAME], caller[:_MOST_NAME], prompt_size(prompt_tokens)
        point = self._point(model, caller, size)
        seen = math.log(max(1, output_tokens))
        if cut_off and seen <= point:
            return
        of_model = self._model(model)
        of_model.errors[output_size(math.exp(point))].add(seen - point)
        for mean in (*of_model.means(size), *self._caller(model, caller, size)):
            mean.add(seen)

    def to_json(self) -> dict[str, Any]:
        return {
            "models": {name: one.to_json() for name, one in self._models.items()},
            "callers": [[*key, [mean.to_json() for mean in means]] for key, means in self._callers.items()],
        }

    @classmethod
    def from_json(cls, raw: object, *, most_callers: int = _MOST_CALLERS) -> OutputLengths:
        """Raise ConfigError for what `to_json` did not write."""
        made = cls(most_callers=most_callers)
        try:
            assert isinstance(raw, dict)
            for name, one in list(raw["models"].items())[-_MOST_MODELS:]:
                made._models[str(name)[:_MOST_NAME]] = _Model.from_json(one)
            for model, caller, means in raw["callers"][-most_callers:]:
                made._callers[str(model)[:_MOST_NAME], str(caller)[:_MOST_NAME]] = _means_from(means)
        except (AssertionError, KeyError, TypeError, ValueError, AttributeError) as cause:
            raise ConfigError(f"output lengths: cannot be read: {type(cause).__name__} {cause}") from cause
        return made

    def __len__(self) -> int:
        """Callers that are remembered."""
        return len(self._callers)

    def _point(self, model: str, caller: str, size: Size) -> float:
        """A logarithm: coarse to fine, each as far as it has seen enough."""
        point = math.log(_FIRST_GUESS_TOKENS)
        of_model, of_caller = self._models.get(model), self._callers.get((model, caller))
        if of_model is not None:
            point = of_model.by_size[size].towards(of_model.every.towards(point))
        if of_caller is not None:
            point = of_caller[1 + size].towards(of_caller[0].towards(point))
        return point

    def _model(self, name: str) -> _Model:
        found = self._models.setdefault(name, _Model())
        self._models.move_to_end(name)
        if len(self._models) > _MOST_MODELS:
            self._models.popitem(last=False)
        return found

    def _caller(self, model: str, caller: str, size: Size) -> tuple[_Mean, _Mean]:
        key = (model, caller)
        means = self._callers.get(key)
        if means is None:
            means = self._callers[key] = [_Mean() for _ in range(1 + len(Size))]
            if len(self._callers) > self._most_callers:
                self._callers.popitem(last=False)
        else:
            self._callers.move_to_end(key)
        return means[0], means[1 + size]


@dataclass(slots=True)
class _Mean:
    count: float = 0.0
    value: float = 0.0

    def add(self, seen: float) -> None:
        self.count = min(self.count + 1.0, _MEMORY)
        self.value += (seen - self.value) / self.count

    def towards(self, coarser: float) -> float:
        share = self.count / (self.count + _SHRINK)
        return coarser + share * (self.value - coarser)

    def to_json(self) -> list[float]:
        return [self.count, self.value]


class _Errors:
    """The last few, in order of arrival and of size."""

    def __init__(self) -> None:
        self._arrived: deque[float] = deque()
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, error: float) -> None:
        self._arrived.append(error)
        insort(self._sorted, error)
        if len(self._arrived) > _ERRORS_KEPT:
            del self._sorted[bisect_left(self._sorted, self._arrived.popleft())]

    def quantile(self, fraction: float) -> float:
        """As split conformal takes it: of n errors the ceil((n + 1) * fraction)-th."""
        rank = math.ceil((len(self._sorted) + 1) * fraction)
        return self._sorted[min(max(rank, 1), len(self._sorted)) - 1]

    def to_json(self) -> list[float]:
        return list(self._arrived)

    @classmethod
    def from_json(cls, raw: Any) -> _Errors:
        made = cls()
        for error in raw[-_ERRORS_KEPT:]:
            made.add(_finite(error))
        return made


@dataclass(slots=True)
class _Model:
    every: _Mean = field(default_factory=_Mean)
    by_size: list[_Mean] = field(default_factory=lambda: [_Mean() for _ in Size])
    errors: list[_Errors] = field(default_factory=lambda: [_Errors() for _ in Size])

    def means(self, size: Size) -> tuple[_Mean, _Mean]:
        return self.every, self.by_size[size]

    def to_json(self) -> dict[str, Any]:
        return {
            "means": [mean.to_json() for mean in (self.every, *self.by_size)],
            "errors": [errors.to_json() for errors in self.errors],
        }

    @classmethod
    def from_json(cls, raw: Any) -> _Model:
        every, *by_size = _means_from(raw["means"])
        errors = [_Errors.from_json(each) for each in raw["errors"]]
        if len(errors) != len(Size):
            raise ValueError("errors of another shape")
        return cls(every, by_size, errors)


def _means_from(raw: Any) -> list[_Mean]:
    means = [_Mean(min(max(float(count), 0.0), _MEMORY), _finite(value)) for count, value in raw]
    if len(means) != 1 + len(Size):
        raise ValueError("means of another shape")
    return means


def _finite(raw: Any) -> float:
    """A logarithm of tokens, or a difference of two."""
    number = float(raw)
    if not abs(number) < _LARGEST_LOG:
        raise ValueError(f"{raw!r} is no usable number")
    return number
