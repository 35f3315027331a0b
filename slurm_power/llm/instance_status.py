"""What one serving instance says of itself, in the words that the managers decide by. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slurm_power.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceStatus:
    """None: the instance does not know."""

    active_model: str
    draining: bool
    running: int
    waiting: int
    max_num_seqs: int
    max_batched_tokens: int
    blocks_total: int
    blocks_held: int
    used_tokens: int
    sm_clock_mhz: int | None  # what was asked for; None: the GPU's own
    least_slack_s: float | None
    first_token_p99_s: float | None
    between_tokens_p50_s: float | None
    between_tokens_p99_s: float | None
    tokens_per_s: float
    draw_watts: float | None
    energy_joules: float | None
    generated_tokens: int
    failure: str | None


def parse_status(raw: object) -> InstanceStatus:
    """From the body of the serving engine's /admin/status. Raise ConfigError for anything else."""
    try:
        assert isinstance(raw, dict)
        models: list[Mapping[str, Any]] = raw["models"]
        classes: list[Mapping[str, Any]] = list(raw["classes"].values())
        return InstanceStatus(
            active_model=str(raw["active"])[:200],
            draining=raw["draining"] is True,
            running=sum(int(one["running"]) for one in models),
            waiting=sum(int(one["waiting"]) for one in models),
            max_num_seqs=max(1, int(raw["limits"]["max_num_seqs"])),
            max_batched_tokens=max(1, int(raw["limits"]["max_batched_tokens"])),
            blocks_total=sum(int(one["blocks_total"]) for one in models),
            blocks_held=sum(int(one["blocks_held"]) for one in models),
            used_tokens=sum(int(one["used_tokens"]) for one in models),
            sm_clock_mhz=None if raw["sm_clock_mhz"] is None else int(raw["sm_clock_mhz"]),
            least_slack_s=_extreme(min, [one["least_slack_s"] for one in classes]),
            first_token_p99_s=_extreme(max, [one["first_token"]["p99_s"] for one in classes]),
            between_tokens_p50_s=_extreme(max, [one["between_tokens"]["p50_s"] for one in classes]),
            between_tokens_p99_s=_extreme(max, [one["between_tokens"]["p99_s"] for one in classes]),
            tokens_per_s=float(raw["tokens_per_s"]),
            draw_watts=_maybe(raw["watts"]),
            energy_joules=_maybe(raw["energy_joules_total"]),
            generated_tokens=int(raw["generated_tokens_total"]),
            failure=None if raw["failure"] is None else str(raw["failure"])[:500],
        )
    except (AssertionError, KeyError, TypeError, ValueError, AttributeError) as cause:
        raise ConfigError(f"this is no status of a serving engine: {type(cause).__name__} {cause}") from cause


def _maybe(raw: Any) -> float | None:
    return None if raw is None else float(raw)


def _extreme(which: Any, values: list[Any]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return float(which(known)) if known else None
