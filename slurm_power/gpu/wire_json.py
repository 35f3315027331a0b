"""The agent's wire messages as JSON bytes, strictly read: a missing, extra or odd field is a ConfigError. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from slurm_power.errors import ConfigError
from slurm_power.gpu.wire import AgentReport, GpuReport, NodeLease

MAX_GPUS = 64
_MAX_TEXT = 1024


def report_to_json(report: AgentReport) -> bytes:
    gpus = [{f.name: getattr(gpu, f.name) for f in fields(GpuReport)} for gpu in report.gpus]
    return _dumped(
        {
            "node_name": report.node_name,
            "base_watts": report.base_watts,
            "age_s": report.age_s,
            "gpus": gpus,
            "lease_remaining_s": report.lease_remaining_s,
        }
    )


def report_from_json(body: bytes) -> AgentReport:
    """Raise ConfigError for anything that is not exactly one AgentReport."""
    table = _keyed(load_object(body), {f.name for f in fields(AgentReport)}, "report")
    gpus = table["gpus"]
    if not isinstance(gpus, list) or len(gpus) > MAX_GPUS:
        raise ConfigError(f"report.gpus: must be a list of at most {MAX_GPUS}")
    return AgentReport(
        node_name=text(table, "node_name"),
        base_watts=maybe_number(table, "base_watts"),
        age_s=number(table, "age_s"),
        gpus=tuple(_gpu_report(gpu) for gpu in gpus),
        lease_remaining_s=maybe_number(table, "lease_remaining_s"),
    )


def lease_to_json(lease: NodeLease | None) -> bytes:
    """No lease is `{}`."""
    if lease is None:
        return b"{}"
    return _dumped(
        {
            "node_name": lease.node_name,
            "lease_id": lease.lease_id,
            "valid_s": lease.valid_s,
            "cap_watts": dict(lease.cap_watts),
            "clock_mhz": dict(lease.clock_mhz),
        }
    )


def lease_from_json(body: bytes) -> NodeLease | None:
    """Raise ConfigError for anything that is not `{}` or exactly one NodeLease with sane numbers."""
    loaded = load_object(body)
    if not loaded:
        return None
    table = _keyed(loaded, {f.name for f in fields(NodeLease)}, "lease")
    caps = {uuid: _positive(value, "lease.cap_watts") for uuid, value in _object(table, "cap_watts").items()}
    clocks = {uuid: _positive(value, "lease.clock_mhz") for uuid, value in _object(table, "clock_mhz").items()}
    return NodeLease(
        node_name=text(table, "node_name"),
        lease_id=integer(table, "lease_id"),
        valid_s=_positive(table["valid_s"], "lease.valid_s"),
        cap_watts=caps,
        clock_mhz={uuid: int(mhz) for uuid, mhz in clocks.items()},
    )


def _gpu_report(value: object) -> GpuReport:
    if not isinstance(value, dict):
        raise ConfigError("report.gpus: must be objects")
    table = _keyed(value, {f.name for f in fields(GpuReport)}, "report.gpus")
    return GpuReport(
        uuid=text(table, "uuid"),
        draw_watts=maybe_number(table, "draw_watts"),
        energy_joules=maybe_number(table, "energy_joules"),
        sm_clock_mhz=maybe_integer(table, "sm_clock_mhz"),
        temperature_celsius=maybe_number(table, "temperature_celsius"),
        utilisation_fraction=maybe_number(table, "utilisation_fraction"),
        cap_watts=maybe_number(table, "cap_watts"),
        cap_source=text(table, "cap_source"),
        min_cap_watts=number(table, "min_cap_watts"),
        max_cap_watts=number(table, "max_cap_watts"),
        job_id=maybe_integer(table, "job_id"),
        error=None if table["error"] is None else text(table, "error"),
    )


def load_object(body: bytes) -> dict[str, Any]:
    """One JSON object without NaN, infinities or repeated keys."""
    try:
        value = json.loads(body, parse_constant=_no_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as cause:
        raise ConfigError(f"not a JSON object: {str(cause)[:100]}") from cause
    if not isinstance(value, dict):
        raise ConfigError("not a JSON object")
    return value


def text(table: Mapping[str, Any], key: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise ConfigError(f"{key}: must be a short text")
    return value


def integer(table: Mapping[str, Any], key: str) -> int:
    value = table.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53:
        raise ConfigError(f"{key}: must be a whole number of zero or more")
    return value


def number(table: Mapping[str, Any], key: str) -> float:
    value = table.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool) or not _finite(value):
        raise ConfigError(f"{key}: must be a number")
    return float(value)


def maybe_number(table: Mapping[str, Any], key: str) -> float | None:
    return None if table.get(key) is None else number(table, key)


def maybe_integer(table: Mapping[str, Any], key: str) -> int | None:
    return None if table.get(key) is None else integer(table, key)


def _positive(value: object, key: str) -> float:
    watts = number({key: value}, key)
    if watts <= 0:
        raise ConfigError(f"{key}: must be above zero")
    return watts


def _object(table: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = table[key]
    if not isinstance(value, dict) or len(value) > MAX_GPUS:
        raise ConfigError(f"{key}: must be an object with at most {MAX_GPUS} entries")
    return value


def _keyed(table: dict[str, Any], keys: set[str], name: str) -> dict[str, Any]:
    if set(table) != keys:
        odd = sorted(set(table) ^ keys)[0][:40]
        raise ConfigError(f"{name}: key {odd!a} is missing or unknown")
    return table


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer too large for a float
        return False


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key is repeated")
    return table


def _dumped(table: Mapping[str, object]) -> bytes:
    return json.dumps(table, allow_nan=False, separators=(",", ":")).encode()
