"""The quality report: figures, verdicts and sentences of some GPUs over some time, and its JSON form. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from slurm_power.sla.canonical import rounded
from slurm_power.sla.gpu_tally import DataFigures, GpuFigures
from slurm_power.sla.histogram import share
from slurm_power.sla.sentences import sentence
from slurm_power.sla.thresholds import QualityThresholds
from slurm_power.sla.verdict import Quadrant, Verdict, judge, worst

FORMAT = "slurm-power/quality-report/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Whose service is reported. Times are of the report, not of the jobs."""

    kind: str  # "job" | "node" | "account" | "site"
    since_wall_s: float
    until_wall_s: float
    job_id: int | None = None
    node: str | None = None
    account: str | None = None
    user: str | None = None
    job_name: str | None = None
    jobs: tuple[int, ...] = ()

    @property
    def title(self) -> str:
        named = {"job": f"job {self.job_id}", "node": f"node {self.node}", "account": f"account {self.account}"}
        return named.get(self.kind, "the whole site")


@dataclass(frozen=True, slots=True)
class QualityReport:
    scope: Scope
    thresholds: QualityThresholds
    gpus: tuple[GpuFigures, ...]
    verdicts: tuple[Mapping[Quadrant, Verdict], ...]  # of each GPU
    quadrants: Mapping[Quadrant, Verdict]
    sentences: Mapping[Quadrant, str]

    @property
    def verdict(self) -> Verdict:
        return worst(self.quadrants.values())


def make_report(scope: Scope, gpus: Sequence[GpuFigures], thresholds: QualityThresholds) -> QualityReport:
    verdicts = tuple(judge(gpu, thresholds) for gpu in gpus)
    judged = list(zip(gpus, verdicts, strict=True))
    return QualityReport(
        scope=scope,
        thresholds=thresholds,
        gpus=tuple(gpus),
        verdicts=verdicts,
        quadrants={quadrant: worst(one[quadrant] for one in verdicts) for quadrant in Quadrant},
        sentences={quadrant: sentence(quadrant, judged, thresholds) for quadrant in Quadrant},
    )


def report_json(report: QualityReport, *, made_wall_s: float, made_by: str) -> dict[str, Any]:
    """Keys are frozen by a test. null: not known. Numbers to six digits after the point."""
    content: dict[str, Any] = rounded(
        {
            "format": FORMAT,
            "made_by": made_by,
            "made_at": iso(made_wall_s),
            "scope": _scope(report.scope),
            "verdict": report.verdict,
            "quadrants": {
                quadrant: {"verdict": verdict, "sentence": report.sentences[quadrant]}
                for quadrant, verdict in report.quadrants.items()
            },
            "data": _data([gpu.data for gpu in report.gpus]),
            "thresholds": asdict(report.thresholds),
            "samples_sha256": samples_sha256(report.gpus),
            "gpus": [_gpu(gpu, verdicts) for gpu, verdicts in zip(report.gpus, report.verdicts, strict=True)],
        }
    )
    return content


def samples_sha256(gpus: Sequence[GpuFigures]) -> str:
    """Of all readings the report was made from: GPU after GPU by UUID, each with the hash of its readings."""
    lines = sorted(f"{gpu.uuid} {gpu.data.samples} {gpu.data.samples_sha256}\n" for gpu in gpus)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def iso(wall_s: float) -> str:
    """UTC, to the millisecond."""
    return datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="milliseconds")


def _scope(scope: Scope) -> dict[str, Any]:
    return {
        **asdict(scope),
        "jobs": list(scope.jobs),
        "since": iso(scope.since_wall_s),
        "until": iso(scope.until_wall_s),
    }


def _data(parts: Sequence[DataFigures]) -> dict[str, Any]:
    known_s, wanted_s = sum(part.known_s for part in parts), sum(part.wanted_s for part in parts)
    return {
        "gpus": len(parts),
        "samples": sum(part.samples for part in parts),
        "wanted_gpu_s": wanted_s,
        "known_gpu_s": known_s,
        "coverage_fraction": share(known_s, wanted_s),
        "gaps": sum(part.gaps.count for part in parts),
        "damaged_blocks": sum(part.damaged_blocks for part in parts),
    }


def _gpu(gpu: GpuFigures, verdicts: Mapping[Quadrant, Verdict]) -> dict[str, Any]:
    clock, throttling, thermal, power = gpu.clock, gpu.throttling, gpu.thermal, gpu.power
    return {
        "uuid": gpu.uuid,
        "node": gpu.node,
        "board": asdict(gpu.board),
        "windows": [{"since": iso(one.begin_wall_s), "until": iso(one.end_wall_s)} for one in gpu.windows],
        "data": {
            "samples": gpu.data.samples,
            "samples_sha256": gpu.data.samples_sha256,
            "interval_s": gpu.data.interval_s,
            "wanted_s": gpu.data.wanted_s,
            "known_s": gpu.data.known_s,
            "coverage_fraction": gpu.data.coverage_fraction,
            "damaged_blocks": gpu.data.damaged_blocks,
            "gap_count": gpu.data.gaps.count,
            "gap_s": gpu.data.gaps.seconds,
            "gaps": [{"since": iso(begin), "until": iso(end)} for begin, end in gpu.data.gaps.listed],
        },
        "clock": {
            "verdict": verdicts[Quadrant.CLOCK],
            **asdict(clock),
            "regimes": [asdict(regime) for regime in clock.regimes],
            "warn_fraction": clock.warn_fraction,
            "critical_fraction": clock.critical_fraction,
        },
        "throttling": {
            "verdict": verdicts[Quadrant.THROTTLING],
            **asdict(throttling),
            "infrastructure_fraction": throttling.infrastructure_fraction,
        },
        "thermal": {
            "verdict": verdicts[Quadrant.THERMAL],
            **asdict(thermal),
            "low_fraction": thermal.low_fraction,
        },
        "power": {
            "verdict": verdicts[Quadrant.POWER],
            **asdict(power),
            "bottleneck_fraction": power.bottleneck_fraction,
            "over_limit_fraction": power.over_limit_fraction,
            "unused_fraction": power.unused_fraction,
        },
    }
