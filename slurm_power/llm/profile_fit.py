"""A `ServingProfile` from measured points: least squares for seconds, a search for watts. Pure.

One point in so many is held out, and the error is told on those alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from slurm_power.errors import ConfigError
from slurm_power.llm.profile import ClockCurve, DecodeDraw, DecodeTime, ServingProfile, ShardProfile

_HELD_OUT_EVERY = 4
_STEEPNESS = (0.4, 0.7, 1.0, 1.4, 2.0)
_LEAST_S = 1e-6


@dataclass(frozen=True, slots=True)
class DecodePoint:
    """One setting, in steady state: an iteration in which `batch` sequences each make one token."""

    clock_mhz: int
    batch: int
    context_tokens: int  # of all of them
    iteration_s: float
    watts: float | None  # of all GPUs; None: no counter


@dataclass(frozen=True, slots=True)
class PromptPoint:
    """One prompt alone, at the highest clock."""

    tokens: int
    seconds: float
    watts: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    name: str
    origin: str
    gpus: int
    gpus_per_server: int
    decodes: Sequence[DecodePoint]
    prompts: Sequence[PromptPoint]
    idle_watts: float | None
    cache_tokens: int
    startup_s: float


def fit_profile(measured: Measured) -> ServingProfile:
    """Raise ConfigError when there are too few points to fit."""
    kept, held_out = split(measured.decodes)
    errors: dict[str, float] = {}
    shard = _shard(measured, kept)
    if held_out:
        errors["decode_s_held_out"] = _mean([_seconds_error(shard, one) for one in held_out])
        with_watts = [one for one in held_out if one.watts]
        if with_watts:
            errors["decode_watts_held_out"] = _mean([_watts_error(shard, one) for one in with_watts])
    whole = _shard(measured, measured.decodes)
    return ServingProfile(
        name=measured.name,
        shards={measured.gpus: whole},
        off_watts=0.0,
        host_watts=0.0,
        gpus_per_server=measured.gpus_per_server,
        boot_s=0.0,
        origin=measured.origin,
        formula="seconds = (prefill(P) + b B + d B^2 + c C) / speed(clock), prefill(0) = a; watts = watts(clock) x "
        "(share x prefill_watts + (1 - share) x (floor + span / (1 + exp(-steepness (log2 B - middle)))))",
        fit_error_fraction=errors,
    )


def split(points: Sequence[DecodePoint]) -> tuple[list[DecodePoint], list[DecodePoint]]:
    """Kept and held out; both ends of the sweep are always kept, for nothing is fitted beyond them."""
    ordered = sorted(points, key=lambda one: (one.clock_mhz, one.batch, one.context_tokens))
    if len(ordered) < 8:
        return ordered, []
    inner = range(_HELD_OUT_EVERY // 2, len(ordered) - 1, _HELD_OUT_EVERY)
    return [one for place, one in enumerate(ordered) if place not in inner], [ordered[place] for place in inner]


def _shard(measured: Measured, decodes: Sequence[DecodePoint]) -> ShardProfile:
    clock = _clock_curve(decodes)
    at_highest = [replace(one, iteration_s=one.iteration_s * clock.speed_fraction(one.clock_mhz)) for one in decodes]
    time = _decode_time(at_highest)
    draw = _decode_draw(decodes, clock)
    tokens, seconds = _prompt_line(measured.prompts, time.base_s)
    most_watts = draw.watts(max(one.batch for one in decodes))
    told = [one.watts for one in measured.prompts if one.watts]
    prefill_watts = max(told, default=most_watts)
    idle_watts = measured.idle_watts if measured.idle_watts is not None else 0.0
    return ShardProfile(
        gpus=measured.gpus,
        clock=clock,
        prefill_tokens=tokens,
        prefill_s=seconds,
        decode=time,
        decode_draw=draw,
        prefill_watts=prefill_watts,
        idle_watts=idle_watts,
        cache_tokens=measured.cache_tokens,
        most_sequences=max(one.batch for one in decodes),
        startup_s=measured.startup_s,
        startup_joules=measured.startup_s * idle_watts,
    )


def _clock_curve(points: Sequence[DecodePoint]) -> ClockCurve:
    """Of settings that were measured at the highest clock too: the mean ratio, made to ascend."""
    clocks = sorted({one.clock_mhz for one in points})
    highest = {(one.batch, one.context_tokens): one for one in points if one.clock_mhz == clocks[-1]}
    speeds, watts = [], []
    for mhz, group in groupby(sorted(points, key=lambda one: one.clock_mhz), key=lambda one: one.clock_mhz):
        pairs = [(one, top) for one in group if (top := highest.get((one.batch, one.context_tokens))) is not None]
        if not pairs:
            raise ConfigError(f"clock {mhz} MHz: no setting was measured there and at the highest clock")
        speeds.append(_mean([top.iteration_s / one.iteration_s for one, top in pairs]))
        ratios = [one.watts / top.watts for one, top in pairs if one.watts and top.watts]
        watts.append(_mean(ratios) if ratios else 1.0)
    return ClockCurve(tuple(clocks), _ascending(speeds), _ascending(watts))


def _decode_time(points: Sequence[DecodePoint]) -> DecodeTime:
    """No part may be below 0: what least squares would make negative is left out, the worst first."""
    columns = {
        "base_s": [1.0 for _ in points],
        "per_sequence_s": [float(one.batch) for one in points],
        "per_sequence_squared_s": [float(one.batch) ** 2 for one in points],
        "per_context_token_s": [float(one.context_tokens) for one in points],
    }
    wanted = np.array([one.iteration_s for one in points])
    weight = 1.0 / np.maximum(wanted, _LEAST_S)  # relative errors count
    names = list(columns)
    while True:
        matrix = np.array([columns[name] for name in names]).T * weight[:, None]
        scale = np.abs(matrix).max(axis=0)
        found = np.linalg.lstsq(matrix / scale, wanted * weight, rcond=None)[0] / scale
        if (found >= 0.0).all() or len(names) == 1:
            break
        names.pop(int(np.argmin(found * scale)))
    parts = dict.fromkeys(columns, 0.0) | {
        name: max(0.0, float(value)) for name, value in zip(names, found, strict=True)
    }
    return DecodeTime(**{**parts, "base_s": max(_LEAST_S, parts["base_s"])})


def _decode_draw(points: Sequence[DecodePoint], clock: ClockCurve) -> DecodeDraw:
    """Floor and span by least squares for each steepness and middle that are tried."""
    known = [(one.batch, one.watts / clock.watts_fraction(one.clock_mhz)) for one in points if one.watts]
    if not known:
        return DecodeDraw(0.0, 0.0, 1.0, 0.0)
    logs = np.log2([max(1, batch) for batch, _ in known])
    watts = np.array([value for _, value in known])
    best, least = DecodeDraw(float(watts.mean()), 0.0, 1.0, 0.0), math.inf
    for steepness in _STEEPNESS:
        for middle in np.linspace(-1.0, float(logs.max()) + 1.0, 13):
            curve = 1.0 / (1.0 + np.exp(-steepness * (logs - middle)))
            matrix = np.stack([np.ones_like(curve), curve], axis=1)
            floor, span = np.linalg.lstsq(matrix, watts, rcond=None)[0]
            if floor < 0.0 or span < 0.0:
                continue
            miss = float(np.abs((floor + span * curve - watts) / watts).sum())
            if miss < least:
                best, least = DecodeDraw(float(floor), float(span), steepness, float(middle)), miss
    return best


def _prompt_line(prompts: Sequence[PromptPoint], base_s: float) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Of several prompts of one length the fastest: others shared the machine with something else."""
    if len({one.tokens for one in prompts}) < 2:
        raise ConfigError("prompts: at least two lengths must be measured")
    fastest: dict[int, float] = {}
    for one in prompts:
        fastest[one.tokens] = min(one.seconds, fastest.get(one.tokens, math.inf))
    tokens, seconds = [0], [base_s]
    for length, value in sorted(fastest.items()):
        tokens.append(length)
        seconds.append(max(value, seconds[-1] * 1.001))
    return tuple(tokens), tuple(seconds)


def _seconds_error(shard: ShardProfile, one: DecodePoint) -> float:
    foreseen_s = shard.iteration_s(
        batch=one.batch, context_tokens=one.context_tokens, prompt_tokens=0, clock_mhz=one.clock_mhz
    )
    return abs(foreseen_s / one.iteration_s - 1.0)


def _watts_error(shard: ShardProfile, one: DecodePoint) -> float:
    assert one.watts, "asked by the caller"
    foreseen = shard.iteration_watts(
        batch=one.batch, context_tokens=one.context_tokens, prompt_tokens=0, clock_mhz=one.clock_mhz
    )
    return abs(foreseen / one.watts - 1.0)


def _ascending(values: Sequence[float]) -> tuple[float, ...]:
    """Noise must not make a lower clock faster; the highest is 1."""
    found: list[float] = []
    most = 1.0
    for value in reversed(values):
        most = min(most, max(1e-3, value)) if found else 1.0
        found.append(most)
        most *= 0.999
    return tuple(reversed(found))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def summary(profile: ServingProfile) -> Mapping[str, float]:
    """What to tell a person of the fit."""
    return {key: round(value, 4) for key, value in profile.fit_error_fraction.items()}
