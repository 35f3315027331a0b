"""Does an energy counter count joules of this board? Its rise is held against the integral of the power. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from slurm_power.errors import require


@dataclass(frozen=True, slots=True)
class CheckRules:
    tolerance_fraction: float = 0.5
    """Coarse on purpose: some boards sample their power a quarter of the time only (arXiv 2312.02741), so a bursty
    load may honestly differ by tens of per cent. Another unit, a stuck counter and another board's are further off."""

    window_s: float = 20.0
    """Of readings with both, before each verdict."""

    def __post_init__(self) -> None:
        require(
            0 < self.tolerance_fraction < 1,
            "tolerance_fraction",
            self.tolerance_fraction,
            "must be above 0 and below 1",
        )
        require(self.window_s > 0, "window_s", self.window_s, "must be positive")


class CounterCheck:
    """Window after window, as long as the readings come. `good` None: no verdict yet."""

    def __init__(self, rules: CheckRules) -> None:
        self._rules = rules
        self._known_s = self._counted_joules = self._integrated_joules = 0.0
        self.good: bool | None = None
        self.verdict = "not held against the power yet"

    def add(self, elapsed_s: float, *, counted_joules: float | None, integrated_joules: float | None) -> None:
        if counted_joules is None or integrated_joules is None:
            return
        self._known_s += elapsed_s
        self._counted_joules += counted_joules
        self._integrated_joules += integrated_joules
        if self._known_s >= self._rules.window_s and self._integrated_joules > 0:
            self._judge()
            self._known_s = self._counted_joules = self._integrated_joules = 0.0

    def _judge(self) -> None:
        ratio = self._counted_joules / self._integrated_joules
        tolerance = self._rules.tolerance_fraction
        self.good = 1 - tolerance <= ratio <= 1 / (1 - tolerance)
        self.verdict = (
            f"the counter rose by {self._counted_joules:.0f} J while the power's integral over {self._known_s:.0f} s"
            f" is {self._integrated_joules:.0f} J"
        )
