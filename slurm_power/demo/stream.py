"""The demo's job stream: about forty jobs of all classes, drawn from a seed. Pure.

Arrivals thicken towards the afternoon, as people's submissions do, so that the jobs' peak meets the
building's. Work is in seconds of an uncapped GPU; Slurm keeps time limits in whole minutes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from slurm_power.relocation.jobs import PowerClass


@dataclass(frozen=True, slots=True)
class DemoJob:
    name: str
    submit_after_s: float  # from the start of the day
    power_class: PowerClass | None  # None: no flag given, the site's default class holds
    gpus: int
    work_s: float
    limit_minutes: int
    gpu_cap_watts: int | None = None
    max_slowdown_fraction: float | None = None
    max_delay_s: int | None = None

    def sbatch_options(self) -> list[str]:
        options = [
            f"--job-name={self.name}",
            f"--gpus={self.gpus}",
            "--nodes=1",
            f"--time={self.limit_minutes}",
        ]
        if self.power_class is not None:
            options.append(f"--power-class={self.power_class.value}")
        if self.gpu_cap_watts is not None:
            options.append(f"--gpu-power-cap={self.gpu_cap_watts}")
        if self.max_slowdown_fraction is not None:
            options.append(f"--power-max-slowdown={self.max_slowdown_fraction}")
        if self.max_delay_s is not None:
            minutes, seconds = divmod(self.max_delay_s, 60)
            options.append(f"--power-max-delay={minutes}:{seconds:02d}")
        return options


_CLASSES = (
    (PowerClass.FIRM, 11),
    (PowerClass.FLEXIBLE, 14),
    (PowerClass.PREEMPTIBLE, 8),
    (None, 7),
)


def draw_stream(seed: int, *, day_s: float) -> tuple[DemoJob, ...]:
    """The jobs of one day in order of submission; the same seed gives the same jobs."""
    draw = random.Random(seed)
    classes = [power_class for power_class, count in _CLASSES for _ in range(count)]
    draw.shuffle(classes)
    arrivals = sorted(_draw_arrival_s(draw, day_s) for _ in classes)
    return tuple(
        _draw_job(draw, index, arrival_s, power_class, day_s)
        for index, (arrival_s, power_class) in enumerate(zip(arrivals, classes, strict=True))
    )


def _draw_arrival_s(draw: random.Random, day_s: float) -> float:
    """A third of the jobs comes at any time, the others around the early afternoon."""
    if draw.random() < 1 / 3:
        return draw.uniform(0.0, 0.85) * day_s
    return min(0.85, max(0.0, draw.gauss(0.55, 0.12))) * day_s


def _draw_job(
    draw: random.Random, index: int, arrival_s: float, power_class: PowerClass | None, day_s: float
) -> DemoJob:
    long = draw.random() < 0.35 and power_class is not PowerClass.FIRM
    work_s = draw.uniform(0.16, 0.24) * day_s if long else draw.uniform(0.05, 0.13) * day_s
    flexible = power_class in (PowerClass.FLEXIBLE, PowerClass.PREEMPTIBLE)
    return DemoJob(
        name=f"{power_class.value if power_class else 'plain'}-{'long' if long else 'short'}-{index:02d}",
        submit_after_s=round(arrival_s, 2),
        power_class=power_class,
        gpus=draw.choice((1, 1, 1, 2) if not long else (1, 1, 2)),
        work_s=round(work_s, 1),
        limit_minutes=math.ceil(2.0 * work_s / 60.0) + (1 if long else 0),
        gpu_cap_watts=draw.choice((350, 450)) if flexible and draw.random() < 0.2 else None,
        max_slowdown_fraction=draw.choice((0.2, 0.4)) if flexible and draw.random() < 0.7 else None,
        max_delay_s=round(0.6 * day_s) if flexible and draw.random() < 0.5 else None,
    )


def expected_it_watts(
    jobs: Sequence[DemoJob], *, at_s: float, gpu_watts: float, idle_gpu_watts: float, gpus: int, base_watts: float
) -> float:
    """IT draw `at_s` into a day if every job had started on arrival: what a site would have seen
    yesterday, near enough to seed the forecaster's history."""
    busy = sum(job.gpus for job in jobs if job.submit_after_s <= at_s < job.submit_after_s + job.work_s)
    busy = min(busy, gpus)
    return base_watts + busy * gpu_watts + (gpus - busy) * idle_gpu_watts
