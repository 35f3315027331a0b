"""[planner]: how far the plan looks, how careful it is, and what held-back work is worth."""

from __future__ import annotations

from dataclasses import dataclass

from slurm_power.errors import require


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerConfig:
    slot_s: float = 900.0
    horizon_s: float = 86_400.0

    inflexible_quantile: float = 0.9
    """The forecast quantile of the inflexible load that the plan must survive."""

    it_quantile: float = 0.5
    """The quantile of the IT load that the plan expects."""

    shed_price_per_kwh: float = 0.1
    """Money per kWh of IT work that is not done when it could be, however short the delay; below the spread of
    energy prices, work is planned to wait for cheap hours. Work that the horizon does not catch up costs more
    (see dispatch_problem.py)."""

    delay_price_per_kwh_hour: float = 0.1
    """Money for each hour that one kWh of IT work waits: what keeps a plan from flattening the day at any delay."""

    max_shed_fraction: float = 1.0
    """Of the IT load beyond the firm part, how much the plan may count on holding back."""

    terminal_value_per_kwh: float | None = None
    """Of a stored kWh when the horizon ends. None: the mean energy price of the horizon x discharge efficiency."""

    headroom_fraction: float = 0.02
    """Of the target, kept free for what happens inside a slot."""

    target_floor_watts: float = 0.0
    """A peak below this is not worth defending: the site expects to reach it in every billing period."""

    target_watts: float | None = None
    """A promise to keep whatever the bill says (grid operator, contract); soft, with a named shortfall. None: none."""

    ramp_cost_fraction: float = 0.01
    """Cost of changing the battery's power, as a share of the mean energy price for one slot: prefers calm plans."""

    def __post_init__(self) -> None:
        require(self.slot_s > 0, "slot_s", self.slot_s, "must be above 0")
        require(self.horizon_s >= self.slot_s, "horizon_s", self.horizon_s, "must be at least slot_s")
        for key in ("inflexible_quantile", "it_quantile"):
            value = getattr(self, key)
            require(value in (0.1, 0.5, 0.9, 0.95), key, value, "must be one of 0.1, 0.5, 0.9, 0.95")
        for key in ("shed_price_per_kwh", "delay_price_per_kwh_hour", "target_floor_watts", "ramp_cost_fraction"):
            value = getattr(self, key)
            require(value >= 0, key, value, "must not be below 0")
        require(0 <= self.max_shed_fraction <= 1, "max_shed_fraction", self.max_shed_fraction, "must be in [0, 1]")
        require(0 <= self.headroom_fraction < 0.5, "headroom_fraction", self.headroom_fraction, "must be in [0, 0.5)")
        require(
            self.target_watts is None or self.target_watts > 0, "target_watts", self.target_watts, "must be above 0"
        )

    @property
    def slots(self) -> int:
        return max(1, round(self.horizon_s / self.slot_s))
