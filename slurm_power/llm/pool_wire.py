"""What a pool manager and the controller tell each other, as JSON bytes, strictly read. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from slurm_power.errors import ConfigError
from slurm_power.llm.power_budget import PoolDraw

MAX_POOLS = 64
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}(/[A-Z]{2})?")
_MOST_WATTS, _MOST_S = 1e9, 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class PoolFigures:
    """What people want to see of a pool; nothing is decided by it. None: unknown."""

    instances: int
    clock_mhz: float | None = None  # the highest that was asked for; None too where GPUs are left to themselves
    slack_s: float | None = None  # the least
    tokens_per_s: float | None = None
    joules_per_token: float | None = None


@dataclass(frozen=True, slots=True)
class PoolReport:
    """Pools are called OWNER/CLASS."""

    owner: str
    pools: tuple[PoolDraw, ...]
    figures: Mapping[str, PoolFigures] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Budget:
    """It holds for so long whether or not anybody is heard of again, and then ends."""

    watts: float
    for_s: float


@dataclass(frozen=True, slots=True)
class Override:
    """A person's wish. `watts` None: withdrawn."""

    pool: str  # OWNER/CLASS, or OWNER for all of its pools together
    watts: float | None
    for_s: float


def report_to_json(report: PoolReport) -> bytes:
    pools = [
        {
            "name": pool.name,
            "draw_watts": pool.draw_watts,
            "least_watts": pool.least_watts,
            "figures": asdict(report.figures[pool.name]) if pool.name in report.figures else None,
        }
        for pool in report.pools
    ]
    return _dumped({"owner": report.owner, "pools": pools})


def report_from_json(body: bytes) -> PoolReport:
    """Raise ConfigError for anything that is not exactly one PoolReport."""
    table = _table(body, {"owner", "pools"}, "report")
    owner, pools = _name(table["owner"], "report.owner"), table["pools"]
    if not isinstance(pools, list) or len(pools) > MAX_POOLS:
        raise ConfigError(f"report.pools: must be a list of at most {MAX_POOLS}")
    read = tuple(_pool(pool, owner) for pool in pools)
    if len({pool.name for pool in read}) < len(read):
        raise ConfigError("report.pools: two of one name")
    shown = {pool.name: _figures(raw["figures"]) for pool, raw in zip(read, pools, strict=True) if raw["figures"]}
    return PoolReport(owner, read, shown)


def budgets_to_json(budgets: Mapping[str, Budget]) -> bytes:
    return _dumped({"budgets": {name: {"watts": one.watts, "for_s": one.for_s} for name, one in budgets.items()}})


def budgets_from_json(body: bytes) -> dict[str, Budget]:
    table = _table(body, {"budgets"}, "answer")["budgets"]
    if not isinstance(table, dict) or len(table) > MAX_POOLS:
        raise ConfigError(f"answer.budgets: must be a table of at most {MAX_POOLS}")
    found = {}
    for name, raw in table.items():
        values = _keyed(raw, {"watts", "for_s"}, "answer.budgets")
        found[_name(name, "answer.budgets")] = Budget(_watts(values["watts"]), _seconds(values["for_s"]))
    return found


def override_to_json(override: Override) -> bytes:
    return _dumped({"pool": override.pool, "watts": override.watts, "for_s": override.for_s})


def override_from_json(body: bytes) -> Override:
    table = _table(body, {"pool", "watts", "for_s"}, "override")
    watts = None if table["watts"] is None else _watts(table["watts"])
    return Override(_name(table["pool"], "override.pool"), watts, _seconds(table["for_s"]))


def _pool(raw: object, owner: str) -> PoolDraw:
    values = _keyed(raw, {"name", "draw_watts", "least_watts", "figures"}, "report.pools")
    name = _name(values["name"], "report.pools")
    if not name.startswith(owner + "/"):
        raise ConfigError(f"report.pools: {name} is not of {owner}")
    return PoolDraw(name, _watts(values["draw_watts"]), _watts(values["least_watts"]))


def _figures(raw: object) -> PoolFigures:
    keys = {"instances", "clock_mhz", "slack_s", "tokens_per_s", "joules_per_token"}
    values = _keyed(raw, keys, "report.pools.figures")
    instances = _number(values["instances"], "instances", 1e6)
    known = {
        key: None if values[key] is None else _number(values[key], key, 1e9, least=-1e9 if key == "slack_s" else 0.0)
        for key in keys - {"instances"}
    }
    return PoolFigures(instances=round(instances), **known)


def _table(body: bytes, keys: set[str], where: str) -> dict[str, Any]:
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError) as cause:
        raise ConfigError(f"{where}: not JSON") from cause
    return _keyed(raw, keys, where)


def _keyed(raw: object, keys: set[str], where: str) -> dict[str, Any]:
    if not isinstance(raw, dict) or set(raw) != keys:
        raise ConfigError(f"{where}: must have exactly {', '.join(sorted(keys))}")
    return raw


def _name(raw: object, where: str) -> str:
    if not isinstance(raw, str) or _NAME.fullmatch(raw) is None:
        raise ConfigError(f"{where}: must be a pool's name, OWNER/CLASS")
    return raw


def _watts(raw: object) -> float:
    return _number(raw, "watts", _MOST_WATTS)


def _seconds(raw: object) -> float:
    return _number(raw, "for_s", _MOST_S)


def _number(raw: object, key: str, most: float, *, least: float = 0.0) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not math.isfinite(raw) or not least <= raw <= most:
        raise ConfigError(f"{key}: must be a number of {least:g} to {most:g}")
    return float(raw)


def _dumped(content: Mapping[str, object]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()
