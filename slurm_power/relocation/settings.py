"""[relocation]: what may be done to jobs, by how much, and how calmly."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from slurm_power.errors import require
from slurm_power.relocation.jobs import PowerClass

_LICENSE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class RelocationConfig:
    license_total_watts: int
    """As in slurm.conf: Licenses=watts:<site IT maximum>."""

    gpu_max_watts: float
    """Board power of one GPU without a cap."""

    gpu_idle_watts: float
    """Draw of a GPU that no job uses."""

    min_gpu_cap_watts: float
    """No cap of ours is below this (the board's minimum or higher)."""

    node_base_watts: float
    """Draw of a node without its GPUs."""

    license_name: str = "watts"
    firm_license_name: str = "firm_watts"
    """Firm jobs hold this one; it is never reserved, so the plan cannot hold them back."""

    default_class: PowerClass = PowerClass.FLEXIBLE
    """Of jobs that did not say."""

    default_max_slowdown_fraction: float = 0.1
    """Throughput that a flexible job may lose if its user did not say."""

    default_max_delay_s: float = 4 * 3600.0
    """From submission, if its user did not say."""

    licensed_draw_fraction: float = 1.0
    """Real draw per licensed watt; below 1 lets more jobs in than their licences say."""

    reservation_horizon_s: float = 24 * 3600.0
    min_reservation_horizon_s: float = 1800.0
    """Never look less far ahead than this, however short jobs run."""

    reservation_levels: int = 24
    """The licences are set aside in so many equal parts, each one reservation."""

    reservation_hysteresis_watts: int = 200
    """A further level is set aside only when it is needed by more than this."""

    max_deferred_fraction: float = 0.5
    """Of the pending jobs that may be deferred at all, at most so many are deferred at a time."""

    min_deferral_s: float = 60.0
    """Shorter deferrals are left to the licences."""

    min_deferral_saving_fraction: float | None = None
    """Defer a job that fits now if its energy is cheaper by this much later. None: never for the price alone."""

    max_jobs_considered: int = 1000
    """Pending jobs looked at in one tick, in Slurm's order."""

    cap_lead_s: float = 0.0
    """Caps look at the envelope from now until so much later."""

    cap_step_watts: float = 10.0
    """Smaller changes of a cap are not made; caps are multiples of this, rounded down."""

    cap_release_margin_watts: float = 200.0
    """Caps are raised only as far as this much of the envelope stays free (hysteresis)."""

    cap_release_fraction_per_tick: float = 0.25
    """Of the way from minimum to uncapped, a cap rises at most so far in one tick: no rebound."""

    curve_power_fractions: tuple[float, ...] = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    curve_throughput_fractions: tuple[float, ...] = (0.0, 0.48, 0.61, 0.69, 0.76, 0.82, 0.87, 0.92, 0.96, 1.0)
    """Throughput of a GPU whose power is cut to this share of what it would draw. The default is an
    assumption: a tenth of the power is idle, the rest goes with the cube of the clock, and work with the clock."""

    requeue_shortfall_watts: float = 500.0
    """Preemptible jobs are requeued only if caps leave more than this uncovered."""

    max_requeues_per_tick: int = 1
    max_requeues_per_job: int = 2

    def __post_init__(self) -> None:
        for key in ("license_name", "firm_license_name"):
            name = getattr(self, key)
            require(_LICENSE_NAME.fullmatch(name) is not None, key, name, "letters, digits and _ only")
        require(
            self.license_name != self.firm_license_name,
            "firm_license_name",
            self.firm_license_name,
            "must differ from license_name, or the plan could hold firm jobs back",
        )
        require(self.license_total_watts > 0, "license_total_watts", self.license_total_watts, "must be above 0")
        require(
            0 < self.min_gpu_cap_watts <= self.gpu_max_watts,
            "min_gpu_cap_watts",
            self.min_gpu_cap_watts,
            "must be above 0 and at most gpu_max_watts",
        )
        require(
            0 <= self.gpu_idle_watts <= self.gpu_max_watts,
            "gpu_idle_watts",
            self.gpu_idle_watts,
            "must be in [0, gpu_max_watts]",
        )
        for key in (
            "node_base_watts",
            "default_max_delay_s",
            "reservation_hysteresis_watts",
            "min_deferral_s",
            "cap_lead_s",
            "cap_release_margin_watts",
            "requeue_shortfall_watts",
            "max_requeues_per_tick",
            "max_requeues_per_job",
            "max_jobs_considered",
        ):
            require(getattr(self, key) >= 0, key, getattr(self, key), "must not be below 0")
        for key in ("reservation_horizon_s", "min_reservation_horizon_s", "reservation_levels", "cap_step_watts"):
            require(getattr(self, key) > 0, key, getattr(self, key), "must be above 0")
        for key in ("licensed_draw_fraction", "cap_release_fraction_per_tick"):
            require(0 < getattr(self, key) <= 1, key, getattr(self, key), "must be in (0, 1]")
        require(
            0 <= self.max_deferred_fraction <= 1,
            "max_deferred_fraction",
            self.max_deferred_fraction,
            "must be in [0, 1]",
        )
        require(
            0 <= self.default_max_slowdown_fraction <= 0.9,
            "default_max_slowdown_fraction",
            self.default_max_slowdown_fraction,
            "must be in [0, 0.9]",
        )
        self._require_curve()

    def _require_curve(self) -> None:
        power, throughput = self.curve_power_fractions, self.curve_throughput_fractions
        require(len(power) == len(throughput) >= 2, "curve_power_fractions", power, "must pair with the throughputs")
        for key, points in (("curve_power_fractions", power), ("curve_throughput_fractions", throughput)):
            rises = all(a < b for a, b in pairwise(points))
            require(rises and points[0] == 0 and points[-1] == 1, key, points, "must rise from 0 to 1")
