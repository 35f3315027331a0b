"""What quality reports are made of, out of a telemetry store: sealed blocks, and single points where there is none."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from slurm_power.ports.telemetry_store import Point, TelemetryStore
from slurm_power.sla.board import BoardFacts, Window
from slurm_power.sla.sample import GpuMoment
from slurm_power.sla.samples import OpenBlock, Samples, from_moments, joined, opened, unsealed
from slurm_power.sla.seal import wall_ms
from slurm_power.sla.spans import JobSpan, Mark, job_spans

CHUNK_S = 21_600.0
"""Of one GPU in memory at once."""

LONGEST_BLOCK_S = 3_600.0
BOARD_SEEN_S = 1_200.0
"""Agents write the boards' facts every ten minutes, ..."""

MARKS_SEEN_S = 1_200.0
"""... and who holds which GPU."""


@dataclass(frozen=True, slots=True, order=True)
class GpuName:
    node: str
    uuid: str

    @property
    def tags(self) -> dict[str, str]:
        return {"node": self.node, "uuid": self.uuid}


class StoredQuality:
    """Each method raises Unavailable when the store cannot be read."""

    def __init__(self, store: TelemetryStore) -> None:
        self._store = store
        self.damaged_blocks = 0
        """Of all chunks read so far: changed or torn, not used."""

    def spans(self, period: Window, *, node: str | None = None) -> list[JobSpan]:
        """Who held which GPU, as far as marks of about this period say."""
        points = self._store.read(
            "gpu_allocation",
            since_wall_s=period.begin_wall_s - MARKS_SEEN_S,
            until_wall_s=period.end_wall_s,
            tags={} if node is None else {"node": node},
        )
        return job_spans(mark for point in points if (mark := _mark(point)) is not None)

    def gpus(self, period: Window, *, node: str | None = None) -> list[GpuName]:
        """Those that an agent saw in a period."""
        points = self._store.read(
            "gpu_board",
            since_wall_s=period.begin_wall_s - BOARD_SEEN_S,
            until_wall_s=period.end_wall_s,
            tags={} if node is None else {"node": node},
        )
        return sorted({GpuName(point.tags["node"], point.tags["uuid"]) for point in points})

    def board(self, gpu: GpuName, window: Window) -> BoardFacts:
        """As last written down before the window's end; all unknown when nobody did near it."""
        since_s = window.begin_wall_s - BOARD_SEEN_S
        points = self._store.read(
            "gpu_board", since_wall_s=since_s, until_wall_s=window.end_wall_s + BOARD_SEEN_S, tags=gpu.tags, limit=1
        )
        return _board(points[-1]) if points else BoardFacts()

    def chunks(self, gpu: GpuName, window: Window) -> Iterator[Samples]:
        """All readings of the window in order of time, CHUNK_S at once."""
        begin_s = window.begin_wall_s
        while begin_s < window.end_wall_s:
            end_s = min(begin_s + CHUNK_S, window.end_wall_s)
            found = self._readings(gpu, begin_s, end_s)
            inside = (found.wall_ms >= wall_ms(begin_s)) & (found.wall_ms < wall_ms(end_s))
            yield found.where(inside)
            begin_s = end_s

    def _readings(self, gpu: GpuName, begin_s: float, end_s: float) -> Samples:
        blocks = self._blocks(gpu, begin_s, end_s)
        parts = [unsealed(blocks)] if blocks else []
        for from_ms, to_ms in _uncovered(blocks, wall_ms(begin_s), wall_ms(end_s)):
            parts += self._single_points(gpu, from_ms / 1000.0, to_ms / 1000.0)
        return joined(parts)

    def _blocks(self, gpu: GpuName, begin_s: float, end_s: float) -> list[OpenBlock]:
        """In order of their begin."""
        points = self._store.read(
            "gpu_block", since_wall_s=begin_s - LONGEST_BLOCK_S, until_wall_s=end_s, tags=gpu.tags
        )
        found = [opened(point.wall_s, point.fields) for point in points if _end_s(point) >= begin_s]
        self.damaged_blocks += found.count(None)
        return [block for block in found if block is not None]

    def _single_points(self, gpu: GpuName, begin_s: float, end_s: float) -> list[Samples]:
        points = self._store.read("gpu", since_wall_s=begin_s, until_wall_s=end_s, tags=gpu.tags)
        return [from_moments([_moment(point) for point in points])] if points else []


def _uncovered(blocks: Sequence[OpenBlock], begin_ms: int, end_ms: int) -> Iterator[tuple[int, int]]:
    """Stretches without a block, where single points may be: longer ones than lie between two blocks as a rule."""
    at_ms, usual_ms = begin_ms, 0.0
    for block in blocks:
        usual_ms = 2.0 * block.step_ms + 1000.0
        if block.begin_ms - at_ms > usual_ms:
            yield at_ms, block.begin_ms
        at_ms = max(at_ms, block.end_ms + 1)
    if end_ms - at_ms > usual_ms:
        yield at_ms, end_ms


def _moment(point: Point) -> GpuMoment:
    reasons, source = _number(point, "throttle_reasons"), point.fields.get("cap_source")
    return GpuMoment(
        point.wall_s,
        sm_clock_mhz=_number(point, "sm_clock_mhz"),
        temperature_celsius=_number(point, "temperature_celsius"),
        thermal_margin_celsius=_number(point, "thermal_margin_celsius"),
        utilisation_fraction=_number(point, "utilisation_fraction"),
        draw_watts=_number(point, "draw_watts"),
        cap_watts=_number(point, "cap_watts"),
        locked_clock_mhz=_number(point, "locked_clock_mhz"),
        power_violation_s=_number(point, "power_violation_s"),
        thermal_violation_s=_number(point, "thermal_violation_s"),
        throttle_reasons=None if reasons is None else int(reasons),
        cap_source=source if isinstance(source, str) else None,
    )


def _end_s(point: Point) -> float:
    end_s = point.fields.get("end_wall_s")
    return float(end_s) if isinstance(end_s, float | int) else math.inf


def _board(point: Point) -> BoardFacts:
    product = point.fields.get("product")
    return BoardFacts(
        product=product if isinstance(product, str) else None,
        tdp_watts=_number(point, "default_cap_watts"),
        max_sm_clock_mhz=_number(point, "max_sm_clock_mhz"),
        slowdown_celsius=_number(point, "slowdown_celsius"),
    )


def _mark(point: Point) -> Mark | None:
    """None: not one of ours."""
    event, job_id, uid = (point.fields.get(name) for name in ("event", "job_id", "uid"))
    if not isinstance(event, str) or not {"node", "uuid"} <= set(point.tags):
        return None
    return Mark(
        point.wall_s,
        point.tags["node"],
        point.tags["uuid"],
        event,
        None if job_id is None else int(job_id),
        None if uid is None else int(uid),
    )


def _number(point: Point, name: str) -> float | None:
    value = point.fields.get(name)
    return float(value) if isinstance(value, float | int) else None


def windows_by_gpu(spans: Sequence[JobSpan]) -> dict[GpuName, list[Window]]:
    """Of spans with an end. Jobs that follow each other on one GPU are windows of their own."""
    found: dict[GpuName, list[Window]] = {}
    for span in spans:
        assert span.end_wall_s is not None, "clip first"
        found.setdefault(GpuName(span.node, span.uuid), []).append(Window(span.begin_wall_s, span.end_wall_s))
    return {gpu: sorted(windows, key=lambda one: one.begin_wall_s) for gpu, windows in sorted(found.items())}
