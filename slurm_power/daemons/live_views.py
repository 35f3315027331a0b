"""What the dashboard is told, part by part: each method is asked anew while somebody watches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from itertools import islice
from typing import Any

from slurm_power.daemons import live_view as live
from slurm_power.daemons.billing_state import BillingState
from slurm_power.daemons.controller_config import ControllerConfig
from slurm_power.daemons.controller_view import Picture, site_json
from slurm_power.ess.bill_so_far import bill_so_far
from slurm_power.ess.rates import Rates
from slurm_power.monitoring.trail import Trail
from slurm_power.ports.telemetry_store import Point

TRAIL_SERIES = (
    "grid_import_watts",
    "target_watts",
    "it_watts",
    "charge_watts",
    "discharge_watts",
    "stored_fraction",
)
TRAIL_BUCKETS = 720
FAILURES_SHOWN = 30


class LiveViews:
    def __init__(
        self, picture: Callable[[], Picture], *, trail: Trail, billing: BillingState, rates: Rates, pue: float
    ) -> None:
        self._picture, self._trail, self._billing, self._rates, self._pue = picture, trail, billing, rates, pue

    def asks(self) -> dict[str, Callable[[], Any]]:
        """Every part by its name on the stream."""
        return {
            "now": self.now,
            "gpus": self.gpus,
            "gpu_names": self.gpu_names,
            "outlook": self.outlook,
            "trail": self._trail.columns,
            "jobs": lambda: live.jobs_live_json(self._picture().view),
            "feed": lambda: live.feed_json(self._picture().view.events),
            "bill": self.bill,
        }

    def now(self) -> dict[str, Any]:
        seen = self._picture()
        site = site_json(seen)
        reporting = [seen.nodes[name] for name in seen.reporting]
        failures, more = site["failures"], max(0, len(site["failures"]) - FAILURES_SHOWN)
        return {
            **site,
            "failures": dict(islice(failures.items(), FAILURES_SHOWN)),
            "failures_more": more,
            "wall_s": seen.wall_s,
            "gpus": live.gpu_sums_json(reporting),
        }

    def gpus(self) -> dict[str, Any]:
        seen = self._picture()
        return live.gpus_json(seen.nodes, now_s=seen.now_s, fresh_names=seen.reporting)

    def gpu_names(self) -> dict[str, list[str]]:
        return live.gpu_names_json(self._picture().nodes)

    def outlook(self) -> dict[str, Any] | None:
        view = self._picture().view
        return live.outlook_json(view, view.forecast, pue=self._pue)

    def bill(self) -> dict[str, Any]:
        seen = self._picture()
        due = bill_so_far(
            self._rates,
            ledger=self._billing.ledger,
            account=self._billing.energy,
            plan=seen.view.plan,
            wall_s=seen.wall_s,
        )
        return {**asdict(due), "total": due.total, "projected_total": due.projected_total}


def trail_values(point: Point) -> dict[str, float | None]:
    """Of a point of the measurement `site`: what the trail keeps."""
    values = {name: point.fields.get(name) for name in TRAIL_SERIES}
    return {name: float(value) if isinstance(value, int | float) else None for name, value in values.items()}


def new_trail(config: ControllerConfig, *, horizon_s: float) -> Trail:
    """Half as long as the plan looks ahead."""
    keep_s = horizon_s / 2
    bucket_s = max(config.fast_period_s, keep_s / TRAIL_BUCKETS)
    return Trail(TRAIL_SERIES, bucket_s=bucket_s, keep_s=keep_s, max_gap_s=config.max_reading_age_s)
