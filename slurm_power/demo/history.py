"""What the site measured before the demo's day: the building's earlier days, and the IT load of another stream."""

from __future__ import annotations

from slurm_power.demo.settings import DemoSettings
from slurm_power.demo.stream import draw_stream, expected_it_watts
from slurm_power.ports.telemetry_store import Point
from slurm_power.testing.simulated_site.profile import LoadProfile

DAYS_BACK = 14
LONGEST_STEP_S = 2.0  # the controller takes a longer silence for a gap
TYPICAL_BUSY_FRACTION = 0.95  # of a board's limit, for a GPU at work


def earlier_points(
    settings: DemoSettings, profile: LoadProfile, *, start_wall_s: float, until_wall_s: float
) -> list[Point]:
    """History for the forecaster. Each earlier day had its own jobs (another seed)."""
    points = []
    step_s = min(settings.slot_s / 2, LONGEST_STEP_S)
    for back in range(DAYS_BACK, 0, -1):
        stream = draw_stream(settings.seed + 1000 * back, day_s=settings.day_s)
        for time_s, watts in profile.samples(
            since_s=-back * settings.day_s, until_s=(1 - back) * settings.day_s, step_s=step_s
        ):
            it_watts = expected_it_watts(
                stream,
                at_s=time_s + back * settings.day_s,
                gpu_watts=TYPICAL_BUSY_FRACTION * settings.gpu_max_watts,
                idle_gpu_watts=settings.gpu_idle_watts,
                gpus=settings.gpus,
                base_watts=float(settings.nodes * settings.node_base_watts),
            )
            values = {"inflexible_watts": watts, "it_watts": it_watts, "it_wanted_watts": it_watts}
            points.append(Point("site", start_wall_s + time_s, values))
    return [point for point in points if point.wall_s < until_wall_s]
