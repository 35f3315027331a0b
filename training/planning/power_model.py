"""How a GPU's speed and power follow its clock, by a model with stated numbers; for where no profile can be measured.

P = idle + utilisation (peak - idle) f V(f)^2 and speed = f^0.8, where f is the clock over the highest one and V(f) has
a flat foot and a slope. The numbers are those of slurm-power's emulated board (testing/nvml_emulator/physics.c). Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from training.errors import require
from training.planning.clock_profiles import ClockProfile, OperatingPoint
from training.planning.instructions import BACKWARD, FORWARD
from training.planning.replay import StageTimes


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerModel:
    idle_watts: float = 70.0
    peak_watts: float = 700.0
    min_clock_mhz: int = 345
    max_clock_mhz: int = 1980
    clock_step_mhz: int = 15
    voltage_floor: float = 0.70
    """Of the voltage at the highest clock."""

    voltage_knee: float = 0.55
    """Clock, of the highest one, below which the voltage stays at its floor."""

    work_exponent: float = 0.8
    """Below 1: memory does not slow down with the clock."""

    def draw_watts(self, utilisation_fraction: float, clock_mhz: float) -> float:
        clock = clock_mhz / self.max_clock_mhz
        slope = (1.0 - self.voltage_floor) / (1.0 - self.voltage_knee)
        voltage = self.voltage_floor + slope * max(0.0, clock - self.voltage_knee)
        return self.idle_watts + utilisation_fraction * (self.peak_watts - self.idle_watts) * clock * voltage**2

    def speed(self, clock_mhz: float) -> float:
        """Of the speed at the highest clock."""
        return float((clock_mhz / self.max_clock_mhz) ** self.work_exponent)

    def clocks_mhz(self, every: int = 1) -> tuple[int, ...]:
        """Settable clocks, highest first; only each `every`-th of them."""
        require(every >= 1, "every", every, "must be at least 1")
        return tuple(range(self.max_clock_mhz, self.min_clock_mhz - 1, -self.clock_step_mhz * every))


EMULATED = PowerModel()


def emulated_profile(
    times: StageTimes,
    *,
    model: PowerModel = EMULATED,
    clocks_mhz: Sequence[int] | None = None,
    utilisation_fraction: float = 1.0,
    waiting_watts: float | None = None,
) -> ClockProfile:
    """`times`: of each stage at the highest clock. `clocks_mhz`: None for all. `waiting_watts`: None for the idle draw,
    which is what the emulated board has when a rank waits."""
    points = {}
    for stage, pair in enumerate(zip(times.forward_s, times.backward_s, strict=True)):
        for direction, time_s in zip((FORWARD, BACKWARD), pair, strict=True):
            points[stage, direction] = tuple(
                _point(model, time_s, clock, utilisation_fraction) for clock in clocks_mhz or model.clocks_mhz()
            )
    return ClockProfile(points=points, waiting_watts=model.idle_watts if waiting_watts is None else waiting_watts)


def _point(model: PowerModel, time_s: float, clock_mhz: int, utilisation_fraction: float) -> OperatingPoint:
    slower_s = time_s / model.speed(clock_mhz)
    return OperatingPoint(slower_s, model.draw_watts(utilisation_fraction, clock_mhz) * slower_s, clock_mhz)
