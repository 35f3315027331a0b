"""What a node's agent tells Prometheus: series per GPU. No job id: with every job new series would begin."""

from __future__ import annotations

from collections.abc import Sequence

from slurm_power.daemons.node_agent_views import GpuView
from slurm_power.monitoring.openmetrics import Family, counter, gauge

THROTTLE_REASONS = {
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x20: "sw_thermal",
    0x40: "hw_thermal",
    0x80: "hw_power_brake",
}
"""NVML's clocks event reasons that slow a job down. The first is expected under a cap of ours or of the user."""

_HERTZ_PER_MHZ = 1e6


def agent_metrics(
    views: Sequence[GpuView],
    *,
    base_watts: float | None,
    lease_remaining_s: float | None,
    tracks_lease: bool,
    now_s: float,
) -> list[Family]:
    """`tracks_lease`: there is a controller that should give leases."""
    lease = None if not tracks_lease else lease_remaining_s is not None
    return [
        gauge("node_base_watts", "Draw of the node beside its GPUs, as configured", base_watts, unit="watts"),
        gauge("agent_lease_held", "1 while a lease of the controller holds", lease),
        *_gpu_families(views, now_s=now_s),
    ]


def _gpu_families(views: Sequence[GpuView], *, now_s: float) -> list[Family]:
    draw = gauge("gpu_draw_watts", "Board power", unit="watts")
    energy = counter("gpu_energy_joules", "Energy since the driver was loaded", unit="joules")
    cap = gauge("gpu_cap_watts", "Limit that the board enforces", unit="watts")
    source = gauge("gpu_cap_source", "1 for who asked for the limit that the board enforces")
    clock = gauge("gpu_sm_clock_hertz", "SM clock", unit="hertz")
    celsius = gauge("gpu_temperature_celsius", "GPU temperature", unit="celsius")
    used = gauge("gpu_utilisation_ratio", "Share of time in which a kernel ran", unit="ratio")
    throttled = gauge("gpu_throttled", "1 while the board slows itself down for this reason")
    by_power = counter("gpu_power_violation_seconds", "Time held back by the power cap", unit="seconds")
    by_heat = counter("gpu_thermal_violation_seconds", "Time held back by heat", unit="seconds")
    busy = gauge("gpu_allocated", "1 while a job holds the GPU")
    readable = gauge("gpu_readable", "0 while the GPU cannot be read or set as wanted")
    age = gauge("gpu_sample_age_seconds", "Since the last sample was taken", unit="seconds")
    for view in views:
        uuid, sample, taken_at_s = view.gpu.uuid, view.gpu.sample, view.gpu.taken_at_s
        readable.add(view.gpu.error is None, uuid=uuid)
        busy.add(view.job_id is not None, uuid=uuid)
        age.add(None if taken_at_s is None else now_s - taken_at_s, uuid=uuid)
        cap.add(view.gpu.enforced_watts, uuid=uuid)
        source.add(1.0, uuid=uuid, source=view.cap_source)
        if sample is None:
            continue
        draw.add(sample.draw_watts, uuid=uuid)
        energy.add(sample.energy_joules, uuid=uuid)
        clock.add(None if sample.sm_clock_mhz is None else sample.sm_clock_mhz * _HERTZ_PER_MHZ, uuid=uuid)
        celsius.add(sample.temperature_celsius, uuid=uuid)
        used.add(sample.utilisation_fraction, uuid=uuid)
        by_power.add(sample.power_violation_s, uuid=uuid)
        by_heat.add(sample.thermal_violation_s, uuid=uuid)
        if sample.throttle_reasons is not None:
            for bit, reason in THROTTLE_REASONS.items():
                throttled.add(bool(sample.throttle_reasons & bit), uuid=uuid, reason=reason)
    return [draw, energy, cap, source, clock, celsius, used, throttled, by_power, by_heat, busy, readable, age]
