"""One plain sentence for each quadrant: what was seen, whose doing it was, what to do. Pure.

What a cap of the operator or the user did is said, and said not to be a fault.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from slurm_power.sla.gpu_tally import GpuFigures
from slurm_power.sla.thresholds import QualityThresholds
from slurm_power.sla.verdict import Quadrant, Verdict, worst

Judged = Sequence[tuple[GpuFigures, Mapping[Quadrant, Verdict]]]

MAX_NAMED = 3


def sentence(quadrant: Quadrant, judged: Judged, thresholds: QualityThresholds) -> str:
    verdict = worst(verdicts[quadrant] for _, verdicts in judged)
    gpus = [gpu for gpu, verdicts in judged if verdicts[quadrant] is verdict]
    if verdict is Verdict.UNKNOWN:
        return _too_little(quadrant, [gpu for gpu, _ in judged], thresholds)
    words = {
        Quadrant.CLOCK: _clock,
        Quadrant.THROTTLING: _throttling,
        Quadrant.THERMAL: _thermal,
        Quadrant.POWER: _power,
    }[quadrant](verdict, gpus, thresholds)
    unknown = sum(verdicts[quadrant] is Verdict.UNKNOWN for _, verdicts in judged)
    return f"{words} Of {unknown} more of {len(judged)} GPUs too little is known." if unknown else words


def _too_little(quadrant: Quadrant, gpus: Sequence[GpuFigures], thresholds: QualityThresholds) -> str:
    known_s = sum(gpu.data.known_s for gpu in gpus)
    wanted_s = sum(gpu.data.wanted_s for gpu in gpus)
    if not wanted_s or known_s < thresholds.data.min_coverage_fraction * wanted_s:
        part = _share(known_s / wanted_s) if wanted_s else "none"
        return f"Too little is known: readings cover {part} of the time. Check that the node's agent reaches the store."
    if quadrant in (Quadrant.CLOCK, Quadrant.POWER):
        return f"The GPUs were loaded for less than {thresholds.data.min_loaded_s:g} s each: there is nothing to judge."
    return "The board does not tell what is needed here; ask for a driver that does."


def _clock(verdict: Verdict, gpus: Sequence[GpuFigures], thresholds: QualityThresholds) -> str:
    rules = thresholds.clock
    gpu = max(gpus, key=lambda one: (one.clock.critical_fraction or 0.0, one.clock.warn_fraction or 0.0))
    expected = f"{gpu.clock.regimes[0].expected_mhz:,.0f} MHz"
    if verdict is Verdict.PASS:
        inside = 1.0 - (gpu.clock.warn_fraction or 0.0)
        return (
            f"The clock stayed within {rules.warn_mhz:g} MHz of what was expected for {_share(inside, digits=1)} of"
            f" the loaded time{_held_by_caps(gpus)}."
        )
    far, away = (
        (rules.critical_mhz, gpu.clock.critical_fraction)
        if verdict is Verdict.FAIL
        else (rules.warn_mhz, gpu.clock.warn_fraction)
    )
    outside = gpu.clock.outside_critical_s if verdict is Verdict.FAIL else gpu.clock.outside_warn_s
    seen = (
        f"{_names(gpus)}: the clock was more than {far:g} MHz off the expected {expected} for"
        f" {_share(away, digits=1)} of the loaded time"
    )
    if outside.infrastructure > outside.unexplained:
        return f"{seen}, while the infrastructure held it back: see throttling."
    return (
        f"{seen}, and no cap and no throttling explains it: have the node taken out of service and the board checked."
    )


def _throttling(verdict: Verdict, gpus: Sequence[GpuFigures], thresholds: QualityThresholds) -> str:
    del thresholds
    if verdict is Verdict.PASS:
        return f"The infrastructure did not hold the GPUs back{_held_by_caps(gpus)}."
    gpu = max(gpus, key=lambda one: one.throttling.infrastructure_fraction or 0.0)
    figures = gpu.throttling
    seen = f"{_names(gpus)}: held back for {_share(figures.infrastructure_fraction, digits=1)} of the time"
    heat_s = max(figures.reasons["sw_thermal"].seconds, figures.reasons["hw_thermal"].seconds)
    if figures.reasons["power_brake"].seconds > heat_s:
        return f"{seen} by the node's power brake: have its power supplies and their feed checked."
    if heat_s > 0 and heat_s >= figures.power_cap_of["site"].seconds:
        return f"{seen} by heat: have the node's air flow, fans and inlet temperature checked."
    if figures.power_cap_of["site"].seconds > 0:
        return (
            f"{seen} by a limit below the board's own that neither slurm-power nor the job set: ask who lowered it"
            " (nvidia-smi, the BMC)."
        )
    return f"{seen} by the hardware's slowdown: have power cabling and cooling of the node checked."


def _thermal(verdict: Verdict, gpus: Sequence[GpuFigures], thresholds: QualityThresholds) -> str:
    gpu = min(gpus, key=lambda one: one.thermal.min_celsius if one.thermal.min_celsius is not None else 1e9)
    figures = gpu.thermal
    if verdict is Verdict.PASS:
        return (
            f"The GPUs kept at least {figures.min_celsius or 0:.0f} °C from the temperature at which a board slows"
            f" itself down; on average {figures.mean_celsius or 0:.0f} °C."
        )
    gpu = max(gpus, key=lambda one: one.thermal.low_fraction or 0.0)
    return (
        f"{_names(gpus)}: less than {thresholds.thermal.low_margin_celsius:g} °C were left for"
        f" {_share(gpu.thermal.low_fraction, digits=1)} of the time, {gpu.thermal.min_celsius or 0:.0f} °C at the"
        " least: have the node's cooling checked before it throttles."
    )


def _power(verdict: Verdict, gpus: Sequence[GpuFigures], thresholds: QualityThresholds) -> str:
    rules = thresholds.power
    if verdict is Verdict.PASS:
        means = [gpu.power.mean_fraction for gpu in gpus if gpu.power.mean_fraction is not None]
        drew = f"{_range(min(means), max(means))} of TDP" if means else "as their limit allows"
        return f"Under load the GPUs drew {drew}{_held_by_caps(gpus)}; nothing points to a bottleneck."
    over = [gpu for gpu in gpus if (gpu.power.over_limit_fraction or 0.0) > rules.warn_over_limit_fraction]
    if over:
        return f"{_names(over)}: drew more than the limit in force allows: have board and limit checked."
    unused = [gpu for gpu in gpus if (gpu.power.unused_fraction or 0.0) > rules.warn_unused_fraction]
    if unused:
        gpu = max(unused, key=lambda one: one.power.unused_fraction or 0.0)
        return (
            f"{_names(unused)}: idle for {_share(gpu.power.unused_fraction)} of the time: ask for fewer GPUs, or find"
            " what the job waits for."
        )
    gpu = max(gpus, key=lambda one: one.power.bottleneck_fraction or 0.0)
    low, part = gpu.power.bottleneck, gpu.power.bottleneck_fraction or 0.0
    return (
        f"{_names(gpus)}: busy ({_share(low.utilisation_fraction)}) but drawing only {_share(low.draw_fraction)} of"
        f" the limit for {_share(part)} of the loaded time, at {low.sm_clock_mhz or 0:,.0f} MHz{_what_else(gpu)}: the"
        " GPU waits for data, other ranks or memory; look at input pipeline, communication and batch size."
    )


def _range(low: float, high: float) -> str:
    return _share(low) if _share(low) == _share(high) else f"{_share(low)} to {_share(high)}"


def _share(fraction: float | None, *, digits: int = 0) -> str:
    return f"{100 * (fraction or 0.0):.{digits}f} %"


def _what_else(gpu: GpuFigures) -> str:
    held_s = sum(held.seconds for held in gpu.throttling.reasons.values())
    throttled = held_s > 0.01 * gpu.throttling.known_s
    margin = gpu.thermal.min_celsius
    heat = "" if margin is None else f" and {margin:.0f} °C of headroom"
    return f", with {'some' if throttled else 'no'} throttling{heat}"


def _held_by_caps(gpus: Sequence[GpuFigures]) -> str:
    """What was agreed or asked for is said, so that a slow job is understood."""
    known_s = sum(gpu.throttling.known_s for gpu in gpus)
    said = []
    for who, words in (("operator", "the power cap agreed with the operator"), ("user", "the job's own power cap")):
        held_s = sum(gpu.throttling.policy_s(who) for gpu in gpus)
        if known_s and held_s > 0.001 * known_s:
            said.append(f"{words} held them for {_share(held_s / known_s)} of the time")
    return f" ({'; '.join(said)}: no fault)" if said else ""


def _names(gpus: Sequence[GpuFigures]) -> str:
    names = [f"{gpu.node} {gpu.uuid[:12]}" for gpu in gpus[:MAX_NAMED]]
    more = len(gpus) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")
