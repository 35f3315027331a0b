"""One GPU's share of a report, chunk by chunk: memory does not grow with the length of the job. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from slurm_power.sla.board import BoardFacts, Window
from slurm_power.sla.clock import ClockFigures, ClockTally
from slurm_power.sla.histogram import share
from slurm_power.sla.intervals import Gaps, Stitcher
from slurm_power.sla.power import PowerFigures, PowerTally
from slurm_power.sla.samples import Samples
from slurm_power.sla.thermal import ThermalFigures, ThermalTally
from slurm_power.sla.thresholds import QualityThresholds
from slurm_power.sla.throttling import ThrottlingFigures, ThrottlingTally
from slurm_power.sla.trace import Trace, TraceTally


@dataclass(frozen=True, slots=True)
class DataFigures:
    """How much is known."""

    samples: int
    interval_s: float | None
    wanted_s: float
    gaps: Gaps
    damaged_blocks: int
    """Sealed blocks that were changed or torn; their time is a gap."""

    samples_sha256: str

    @property
    def known_s(self) -> float:
        return max(0.0, self.wanted_s - self.gaps.seconds)

    @property
    def coverage_fraction(self) -> float | None:
        return share(self.known_s, self.wanted_s)


@dataclass(frozen=True, slots=True)
class GpuFigures:
    uuid: str
    node: str
    board: BoardFacts
    windows: tuple[Window, ...]
    data: DataFigures
    clock: ClockFigures
    throttling: ThrottlingFigures
    thermal: ThermalFigures
    power: PowerFigures
    trace: Trace


class GpuTally:
    """Open a window, feed its readings in order of time, close it; then the next window, or the figures."""

    def __init__(
        self, uuid: str, node: str, *, board: BoardFacts, thresholds: QualityThresholds, whole: Window
    ) -> None:
        self._uuid, self._node, self._board = uuid, node, board
        self._thresholds = thresholds
        self._windows: list[Window] = []
        self._hash = hashlib.sha256()
        self._stitcher = Stitcher(thresholds.data, board)
        self._clock = ClockTally()
        self._throttling = ThrottlingTally()
        self._thermal = ThermalTally(board, thresholds.thermal)
        self._power = PowerTally(board, thresholds.power)
        self._trace = TraceTally(whole.begin_wall_s, whole.end_wall_s, slowdown_celsius=board.slowdown_celsius)

    def open(self, window: Window) -> None:
        self._windows.append(window)
        self._stitcher.open(window)

    def feed(self, chunk: Samples) -> None:
        self._hash.update(chunk.rows())
        intervals = self._stitcher.feed(chunk)
        if intervals is None:
            return
        for tally in (self._clock, self._throttling, self._thermal, self._power, self._trace):
            tally.add(intervals)

    def close(self) -> None:
        self._stitcher.close()

    def figures(self, *, damaged_blocks: int = 0) -> GpuFigures:
        data = DataFigures(
            samples=self._stitcher.samples,
            interval_s=self._stitcher.interval_s,
            wanted_s=sum(window.end_wall_s - window.begin_wall_s for window in self._windows),
            gaps=self._stitcher.gaps,
            damaged_blocks=damaged_blocks,
            samples_sha256=self._hash.hexdigest(),
        )
        return GpuFigures(
            uuid=self._uuid,
            node=self._node,
            board=self._board,
            windows=tuple(self._windows),
            data=data,
            clock=self._clock.figures(self._thresholds.clock),
            throttling=self._throttling.figures(),
            thermal=self._thermal.figures(),
            power=self._power.figures(),
            trace=self._trace.trace(),
        )
