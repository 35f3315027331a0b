"""What the agent keeps for quality reports beside its once-a-second points: sealed blocks of readings, board facts."""

from __future__ import annotations

from collections.abc import Iterable

from slurm_power.daemons.node_agent_views import GpuView
from slurm_power.ports.telemetry_store import FieldValue, Point
from slurm_power.sla.sample import GpuMoment
from slurm_power.sla.seal import LAYOUT, SealedBlock, Sealer

BOARD_PERIOD_S = 600.0
"""How often the facts of each board are written again: they are found beside any reading of about that time."""


class SampleKeeper:
    def __init__(self, *, node_name: str, seal_period_s: float) -> None:
        self._node_name = node_name
        self._seal_period_s = seal_period_s
        self._sealers: dict[str, Sealer] = {}
        self._boards_at_s: dict[str, float] = {}

    def keep(self, views: Iterable[GpuView], *, wall_s: float) -> list[Point]:
        """Points that have become due with these readings."""
        due: list[Point] = []
        for view in views:
            uuid = view.gpu.uuid
            if not 0 <= wall_s - self._boards_at_s.get(uuid, -BOARD_PERIOD_S) < BOARD_PERIOD_S:
                self._boards_at_s[uuid] = wall_s
                due.append(board_point(view, node_name=self._node_name, wall_s=wall_s))
            moment = gpu_moment(view, wall_s=wall_s)
            if moment is not None:
                block = self._sealers.setdefault(uuid, Sealer(self._seal_period_s)).add(moment)
                due += [] if block is None else [block_point(block, uuid=uuid, node_name=self._node_name)]
        return due

    def seal_all(self) -> list[Point]:
        blocks = [(uuid, sealer.seal()) for uuid, sealer in self._sealers.items()]
        return [block_point(block, uuid=uuid, node_name=self._node_name) for uuid, block in blocks if block is not None]


def gpu_moment(view: GpuView, *, wall_s: float) -> GpuMoment | None:
    """None while the GPU cannot be read: a gap says so."""
    sample = view.gpu.sample
    if sample is None:
        return None
    return GpuMoment(
        wall_s,
        sm_clock_mhz=sample.sm_clock_mhz,
        temperature_celsius=sample.temperature_celsius,
        thermal_margin_celsius=sample.thermal_margin_celsius,
        utilisation_fraction=sample.utilisation_fraction,
        draw_watts=sample.draw_watts,
        cap_watts=view.gpu.enforced_watts,
        locked_clock_mhz=view.locked_clock_mhz,
        power_violation_s=sample.power_violation_s,
        thermal_violation_s=sample.thermal_violation_s,
        throttle_reasons=sample.throttle_reasons,
        cap_source=view.cap_source,
    )


def block_point(block: SealedBlock, *, uuid: str, node_name: str) -> Point:
    fields: dict[str, FieldValue] = {
        "layout": LAYOUT,
        "samples": block.samples,
        "end_wall_s": block.end_wall_s,
        "columns": block.columns,
        "sha256": block.sha256,
    }
    return Point("gpu_block", block.begin_wall_s, fields, {"node": node_name, "uuid": uuid})


def board_point(view: GpuView, *, node_name: str, wall_s: float) -> Point:
    limits = view.gpu.limits
    fields: dict[str, FieldValue] = {
        "product": view.gpu.identity.name,
        "default_cap_watts": limits.default_cap_watts,
        "min_cap_watts": limits.min_cap_watts,
        "max_cap_watts": limits.max_cap_watts,
        "max_sm_clock_mhz": limits.max_sm_clock_mhz,
    }
    if limits.slowdown_celsius is not None:
        fields["slowdown_celsius"] = limits.slowdown_celsius
    return Point("gpu_board", wall_s, fields, {"node": node_name, "uuid": view.gpu.uuid})
