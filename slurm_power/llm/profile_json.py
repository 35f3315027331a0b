"""A `ServingProfile` as JSON: strict keys, every number checked, and printed so that it reads the same again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from slurm_power.errors import ConfigError
from slurm_power.llm.profile import ClockCurve, DecodeDraw, DecodeTime, ServingProfile, ShardProfile

_PROFILE = ("name", "origin", "formula", "fit_error_fraction", "server", "clock", "shards")
_SERVER = ("gpus", "off_watts_per_gpu", "host_watts", "boot_s")
_CLOCK = ("clocks_mhz", "speed_fractions", "watts_fractions")
_SHARD = ("gpus", "prefill_tokens", "prefill_s", "decode_s", "decode_watts", "prefill_watts", "idle_watts")
_SHARD_ALL = (*_SHARD, "cache_tokens", "most_sequences", "startup_s", "startup_joules")
_DECODE_S = ("base", "per_sequence", "per_sequence_squared", "per_context_token")
_DECODE_WATTS = ("floor", "span", "steepness", "middle_log2")


def parse_profile(raw: object, *, where: str) -> ServingProfile:
    """Raise ConfigError naming `where`, the key and the rule."""
    top = _table(raw, _PROFILE, where)
    server = _table(top["server"], _SERVER, f"{where}: server")
    clock = _clock(top["clock"], f"{where}: clock")
    shards = top["shards"]
    if not isinstance(shards, list) or not shards:
        raise ConfigError(f"{where}: shards: must be a list of at least one")
    parsed = [_shard(one, clock, f"{where}: shards[{index}]") for index, one in enumerate(shards)]
    gpus_per_server = _whole(server, "gpus", where)
    for shard in parsed:
        if shard.gpus > gpus_per_server:
            raise ConfigError(f"{where}: shards: {shard.gpus} GPUs are more than the server's {gpus_per_server}")
    errors = top["fit_error_fraction"]
    if not isinstance(errors, dict):
        raise ConfigError(f"{where}: fit_error_fraction: must be a table")
    return ServingProfile(
        name=_text(top, "name", where),
        shards={shard.gpus: shard for shard in parsed},
        off_watts=_number(server, "off_watts_per_gpu", where),
        host_watts=_number(server, "host_watts", where),
        gpus_per_server=gpus_per_server,
        boot_s=_number(server, "boot_s", where),
        origin=_text(top, "origin", where),
        formula=_text(top, "formula", where),
        fit_error_fraction={str(key): _number(errors, key, where) for key in errors},
    )


def profile_as_json(profile: ServingProfile) -> dict[str, Any]:
    clock = next(iter(profile.shards.values())).clock
    return {
        "name": profile.name,
        "origin": profile.origin,
        "formula": profile.formula,
        "fit_error_fraction": dict(profile.fit_error_fraction),
        "server": {
            "gpus": profile.gpus_per_server,
            "off_watts_per_gpu": profile.off_watts,
            "host_watts": profile.host_watts,
            "boot_s": profile.boot_s,
        },
        "clock": {key: list(getattr(clock, key)) for key in _CLOCK},
        "shards": [_shard_as_json(shard) for shard in profile.shards.values()],
    }


def _shard_as_json(shard: ShardProfile) -> dict[str, Any]:
    time, draw = shard.decode, shard.decode_draw
    times = (time.base_s, time.per_sequence_s, time.per_sequence_squared_s, time.per_context_token_s)
    draws = (draw.floor_watts, draw.span_watts, draw.steepness, draw.middle_log2)
    return {
        "gpus": shard.gpus,
        "prefill_tokens": list(shard.prefill_tokens),
        "prefill_s": list(shard.prefill_s),
        "decode_s": dict(zip(_DECODE_S, times, strict=True)),
        "decode_watts": dict(zip(_DECODE_WATTS, draws, strict=True)),
        "prefill_watts": shard.prefill_watts,
        "idle_watts": shard.idle_watts,
        "cache_tokens": shard.cache_tokens,
        "most_sequences": shard.most_sequences,
        "startup_s": shard.startup_s,
        "startup_joules": shard.startup_joules,
    }


def _clock(raw: object, where: str) -> ClockCurve:
    table = _table(raw, _CLOCK, where)
    clocks = [round(one) for one in _numbers(table, "clocks_mhz", where, ascending=True)]
    speeds = _numbers(table, "speed_fractions", where, ascending=True)
    watts = _numbers(table, "watts_fractions", where, ascending=True)
    for key, values in (("speed_fractions", speeds), ("watts_fractions", watts)):
        if len(values) != len(clocks) or values[0] <= 0 or values[-1] != 1.0:
            raise ConfigError(f"{where}: {key}: must be as many as clocks, above 0, and end with 1")
    return ClockCurve(tuple(clocks), tuple(speeds), tuple(watts))


def _shard(raw: object, clock: ClockCurve, where: str) -> ShardProfile:
    table = _table(raw, _SHARD_ALL, where)
    tokens = [round(one) for one in _numbers(table, "prefill_tokens", where, ascending=True)]
    seconds = _numbers(table, "prefill_s", where, ascending=True)
    if len(tokens) != len(seconds) or len(tokens) < 2 or tokens[0] != 0:
        raise ConfigError(f"{where}: prefill_s: must be as many as prefill_tokens, which begin with 0")
    time = _table(table["decode_s"], _DECODE_S, f"{where}: decode_s")
    draw = _table(table["decode_watts"], _DECODE_WATTS, f"{where}: decode_watts")
    return ShardProfile(
        gpus=_whole(table, "gpus", where),
        clock=clock,
        prefill_tokens=tuple(tokens),
        prefill_s=tuple(seconds),
        decode=DecodeTime(*(_number(time, key, where) for key in _DECODE_S)),
        decode_draw=DecodeDraw(*(_number(draw, key, where) for key in _DECODE_WATTS)),
        prefill_watts=_number(table, "prefill_watts", where),
        idle_watts=_number(table, "idle_watts", where),
        cache_tokens=_whole(table, "cache_tokens", where),
        most_sequences=_whole(table, "most_sequences", where),
        startup_s=_number(table, "startup_s", where),
        startup_joules=_number(table, "startup_joules", where),
    )


def _table(raw: object, keys: Iterable[str], where: str) -> Mapping[str, Any]:
    known = tuple(keys)
    if not isinstance(raw, dict):
        raise ConfigError(f"{where}: must be a table")
    for key in raw:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {str(key)[:60]!r}; known: {', '.join(known)}")
    for key in known:
        if key not in raw:
            raise ConfigError(f"{where}: {key} is missing")
    return raw


def _number(table: Mapping[str, Any], key: str, where: str) -> float:
    return _checked(table[key], key, where)


def _checked(value: object, key: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise ConfigError(f"{where}: {key} = {str(value)[:60]}: must be a number of at least 0")
    return float(value)


def _whole(table: Mapping[str, Any], key: str, where: str) -> int:
    value = _number(table, key, where)
    if value < 1 or value != int(value):
        raise ConfigError(f"{where}: {key} = {value}: must be a whole number of at least 1")
    return int(value)


def _numbers(table: Mapping[str, Any], key: str, where: str, *, ascending: bool) -> list[float]:
    values = table[key]
    if not isinstance(values, list) or not values:
        raise ConfigError(f"{where}: {key}: must be a list of numbers")
    numbers = [_checked(one, key, where) for one in values]
    if ascending and any(later <= before for before, later in pairwise(numbers)):
        raise ConfigError(f"{where}: {key}: must ascend")
    return numbers


def _text(table: Mapping[str, Any], key: str, where: str) -> str:
    value = table[key]
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{where}: {key}: must be a text")
    return value
