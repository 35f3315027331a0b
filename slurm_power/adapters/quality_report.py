"""Makes a quality report: which GPUs and when, by scope, and their readings chunk by chunk through the pure tallies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from slurm_power.adapters.job_facts import JobFacts
from slurm_power.adapters.quality_samples import GpuName, StoredQuality, windows_by_gpu
from slurm_power.errors import ConfigError
from slurm_power.sla.board import Window
from slurm_power.sla.gpu_tally import GpuFigures, GpuTally
from slurm_power.sla.report import QualityReport, Scope, make_report
from slurm_power.sla.spans import JobSpan, clipped
from slurm_power.sla.thresholds import QualityThresholds

Tell = Callable[[float], None]
"""Called with the share that is done, 0 to 1."""

Windows = Mapping[GpuName, Sequence[Window]]


def of_job(
    stored: StoredQuality,
    job_id: int,
    facts: JobFacts | None,
    *,
    period: Window,
    thresholds: QualityThresholds,
    tell: Tell,
) -> QualityReport:
    """Raise ConfigError when no agent saw the job in this period."""
    spans = _spans(stored, period, nodes=None if facts is None else facts.nodes)
    end_s = None if facts is None else facts.end_wall_s
    own = clipped([_ended(span, end_s) for span in spans if span.job_id == job_id], period)
    if not own:
        raise ConfigError(f"job {job_id}: no agent saw it hold a GPU in this period")
    scope = Scope(
        kind="job",
        job_id=job_id,
        user=facts.user if facts else None,
        account=facts.account if facts else None,
        job_name=facts.job_name if facts else None,
        jobs=(job_id,),
        since_wall_s=min(span.begin_wall_s for span in own),
        until_wall_s=max(span.end_wall_s or 0.0 for span in own),
    )
    return _report(stored, scope, windows_by_gpu(own), thresholds, tell)


def of_account(
    stored: StoredQuality,
    account: str,
    jobs: Sequence[JobFacts],
    *,
    period: Window,
    thresholds: QualityThresholds,
    tell: Tell,
) -> QualityReport:
    """All GPUs of the account's jobs, while they held them."""
    wanted = {job.job_id for job in jobs}
    nodes = sorted({node for job in jobs for node in job.nodes})
    own = clipped(
        [span for span in _spans(stored, period, nodes=nodes) if span.job_id in wanted] if jobs else [],
        period,
    )
    if not own:
        raise ConfigError(f"account {account}: none of its jobs held a GPU in this period")
    seen = tuple(sorted({span.job_id for span in own}))
    scope = Scope(
        kind="account", account=account, jobs=seen, since_wall_s=period.begin_wall_s, until_wall_s=period.end_wall_s
    )
    return _report(stored, scope, windows_by_gpu(own), thresholds, tell)


def of_nodes(
    stored: StoredQuality, node: str | None, *, period: Window, thresholds: QualityThresholds, tell: Tell
) -> QualityReport:
    """All GPUs of one node, or (None) of the site, the whole time, whoever held them."""
    gpus = stored.gpus(period, node=node)
    if not gpus:
        raise ConfigError(f"{node or 'the site'}: no agent reported a GPU in this period")
    kind = "site" if node is None else "node"
    scope = Scope(kind=kind, node=node, since_wall_s=period.begin_wall_s, until_wall_s=period.end_wall_s)
    return _report(stored, scope, {gpu: [period] for gpu in gpus}, thresholds, tell)


def of_windows(
    stored: StoredQuality, windows: Windows, *, scope: Scope, thresholds: QualityThresholds, tell: Tell
) -> QualityReport:
    """The same windows again: to hold a report against the store."""
    return _report(stored, scope, windows, thresholds, tell)


def _report(
    stored: StoredQuality, scope: Scope, windows: Windows, thresholds: QualityThresholds, tell: Tell
) -> QualityReport:
    whole = Window(scope.since_wall_s, scope.until_wall_s)
    total_s = sum(one.end_wall_s - one.begin_wall_s for of_gpu in windows.values() for one in of_gpu) or 1.0
    done_s = 0.0

    def note(window: Window, reached_s: float) -> None:
        tell((done_s + reached_s - window.begin_wall_s) / total_s)

    figures = []
    for gpu, of_gpu in windows.items():
        figures.append(_figures(stored, gpu, of_gpu, whole, thresholds, note))
        done_s += sum(one.end_wall_s - one.begin_wall_s for one in of_gpu)
    tell(1.0)
    return make_report(scope, figures, thresholds)


def _figures(
    stored: StoredQuality,
    gpu: GpuName,
    windows: Sequence[Window],
    whole: Window,
    thresholds: QualityThresholds,
    note: Callable[[Window, float], None],
) -> GpuFigures:
    damaged_before = stored.damaged_blocks
    board = stored.board(gpu, windows[-1])
    tally = GpuTally(gpu.uuid, gpu.node, board=board, thresholds=thresholds, whole=whole)
    for window in windows:
        tally.open(window)
        for chunk in stored.chunks(gpu, window):
            tally.feed(chunk)
            if len(chunk):
                note(window, float(chunk.wall_ms[-1]) / 1000.0)
        tally.close()
    return tally.figures(damaged_blocks=stored.damaged_blocks - damaged_before)


def _spans(stored: StoredQuality, period: Window, *, nodes: Iterable[str] | None) -> list[JobSpan]:
    """A job's begin may be the last mark before the period: agents repeat them every ten minutes."""
    if not nodes:
        return stored.spans(period)
    return [span for node in nodes for span in stored.spans(period, node=node)]


def _ended(span: JobSpan, end_wall_s: float | None) -> JobSpan:
    """The agent may have been dead when the job ended; Slurm knows."""
    if span.end_wall_s is not None or end_wall_s is None or end_wall_s <= span.begin_wall_s:
        return span
    return replace(span, end_wall_s=end_wall_s)
