"""What the agent tells others: the controller's report, the local status, and points for the store. No decisions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from slurm_power.daemons.node_agent_gpu import ManagedGpu
from slurm_power.gpu.borrowing import Knob
from slurm_power.gpu.caps import EffectiveCap, EffectiveClock, same_cap
from slurm_power.gpu.local_request import RawPoint
from slurm_power.gpu.wire import GpuReport
from slurm_power.monitoring.energy_marks import Count
from slurm_power.ports.telemetry_store import FieldValue, Point


@dataclass(frozen=True, slots=True)
class GpuView:
    """One GPU with who holds it and what it should be held at. `cap` None: the limit is not known now."""

    gpu: ManagedGpu
    cap: EffectiveCap | None
    clock: EffectiveClock
    job_id: int | None

    @property
    def cap_source(self) -> str:
        """Who asked for the limit that the board enforces; "found" while it enforces somebody else's."""
        enforced = self.gpu.enforced_watts
        applied = self.cap is not None and enforced is not None and same_cap(enforced, self.cap.watts)
        return self.cap.source if self.cap is not None and applied else "found"

    @property
    def locked_clock_mhz(self) -> float | None:
        """The lock that we set; NVML cannot be asked for anybody else's."""
        return self.gpu.last_set.get(Knob.CLOCK)


def gpu_report(view: GpuView) -> GpuReport:
    gpu, sample = view.gpu, view.gpu.sample
    return GpuReport(
        uuid=gpu.uuid,
        draw_watts=sample.draw_watts if sample else None,
        energy_joules=sample.energy_joules if sample else None,
        sm_clock_mhz=sample.sm_clock_mhz if sample else None,
        temperature_celsius=sample.temperature_celsius if sample else None,
        utilisation_fraction=sample.utilisation_fraction if sample else None,
        cap_watts=gpu.enforced_watts,
        cap_source=view.cap_source,
        min_cap_watts=gpu.limits.min_cap_watts,
        max_cap_watts=gpu.limits.max_cap_watts,
        job_id=view.job_id,
        error=gpu.error,
    )


def gpu_status(view: GpuView, *, now_s: float) -> dict[str, object]:
    """The report of one GPU, its age, and what every source asked for."""
    report = gpu_report(view)
    taken_at_s = view.gpu.taken_at_s
    status: dict[str, object] = {name: getattr(report, name) for name in GpuReport.__slots__}
    status["age_s"] = None if taken_at_s is None else now_s - taken_at_s
    if view.cap is not None:
        sources = view.cap.sources
        status["cap_sources"] = {
            "found": sources.found_watts,
            "user": sources.user_watts,
            "lease": sources.lease_watts,
            "safe": sources.safe_watts,
        }
    status["clock_mhz"] = view.clock.mhz
    status["clock_source"] = view.clock.source
    return status


def gpu_point(view: GpuView, *, node_name: str, wall_s: float) -> Point | None:
    """None while the GPU cannot be read: a gap in the series says so."""
    sample = view.gpu.sample
    if sample is None:
        return None
    values: dict[str, FieldValue | None] = {
        "draw_watts": sample.draw_watts,
        "energy_joules": sample.energy_joules,
        "sm_clock_mhz": sample.sm_clock_mhz,
        "memory_clock_mhz": sample.memory_clock_mhz,
        "temperature_celsius": sample.temperature_celsius,
        "utilisation_fraction": sample.utilisation_fraction,
        "throttle_reasons": sample.throttle_reasons,
        "power_violation_s": sample.power_violation_s,
        "thermal_violation_s": sample.thermal_violation_s,
        "thermal_margin_celsius": sample.thermal_margin_celsius,
        "cap_watts": view.gpu.enforced_watts,
        "locked_clock_mhz": view.locked_clock_mhz,
    }
    known = {name: value for name, value in values.items() if value is not None}
    fields: dict[str, FieldValue] = {**known, "cap_source": view.cap_source}
    return Point("gpu", wall_s, fields, {"node": node_name, "uuid": view.gpu.uuid})


def node_point(
    gpus: Iterable[ManagedGpu],
    *,
    base_watts: float | None,
    node_name: str,
    wall_s: float,
    cpu_watts: float | None = None,
) -> Point | None:
    """The draw is left out as soon as one part is unknown; None when nothing is known."""
    fields: dict[str, FieldValue] = {}
    total_watts = _draw_watts(gpus, base_watts=base_watts)
    if total_watts is not None and base_watts is not None:
        fields |= {"draw_watts": total_watts, "base_watts": base_watts}
    if cpu_watts is not None:
        fields["cpu_watts"] = cpu_watts
    return Point("node", wall_s, fields, {"node": node_name}) if fields else None


def _draw_watts(gpus: Iterable[ManagedGpu], *, base_watts: float | None) -> float | None:
    total_watts = base_watts
    for gpu in gpus:
        if total_watts is None or gpu.sample is None or gpu.sample.draw_watts is None:
            return None
        total_watts += gpu.sample.draw_watts
    return total_watts


def allocation_point(
    uuid: str,
    *,
    job_id: int | None,
    uid: int | None,
    event: str,
    node_name: str,
    wall_s: float,
    count: Count | None = None,
) -> Point:
    """The job id is a field: as a tag it would open a new series for every job."""
    fields: dict[str, FieldValue] = {"event": event}
    if job_id is not None and uid is not None:
        fields |= {"job_id": job_id, "uid": uid}
    if count is not None:
        fields |= count_fields(count)
    return Point("gpu_allocation", wall_s, fields, {"node": node_name, "uuid": uuid})


def count_fields(count: Count) -> dict[str, FieldValue]:
    fields: dict[str, FieldValue] = {
        "life_wall_s": count.life_wall_s,
        "up_s": count.up_s,
        "counted_joules": count.used.counted_joules,
        "integrated_joules": count.used.integrated_joules,
        "unknown_s": count.used.unknown_s,
    }
    return fields if count.energy_joules is None else {**fields, "energy_joules": count.energy_joules}


def node_energy_point(
    *,
    node_name: str,
    wall_s: float,
    life_wall_s: float,
    up_s: float,
    gpus: int,
    cpu_joules: float | None,
    rest_joules: float | None,
) -> Point:
    fields: dict[str, FieldValue] = {"life_wall_s": life_wall_s, "up_s": up_s, "gpus": gpus}
    for name, value in (("cpu_joules", cpu_joules), ("rest_joules", rest_joules)):
        if value is not None:
            fields[name] = value
    return Point("node_energy", wall_s, fields, {"node": node_name})


def job_point(raw: RawPoint, *, job_id: int, uid: int, node_name: str) -> Point:
    """A job's own point with the stamp that only the agent can give."""
    fields: dict[str, FieldValue] = {**raw.fields, "job_id": job_id, "uid": uid}
    return Point(raw.measurement, raw.wall_s, fields, {**raw.tags, "node": node_name})
