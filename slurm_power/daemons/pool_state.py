"""What a pool manager keeps over a restart: output lengths, the week's arrivals, which instance was in which pool."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from slurm_power.daemons.pool_roster import pool_of
from slurm_power.errors import ConfigError, SlurmPowerError
from slurm_power.llm.output_length import OutputLengths
from slurm_power.llm.request_class import RequestClass
from slurm_power.ports.journal import Journal

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PoolState:
    lengths: OutputLengths = field(default_factory=OutputLengths)
    template: Mapping[int, float] = field(default_factory=dict)  # slot of the week -> tokens per second
    pools: Mapping[int, RequestClass] = field(default_factory=dict)  # by job


def load_state(journal: Journal) -> PoolState:
    """What cannot be read is learnt anew: no manager stays down for it."""
    try:
        records = {str(record.get("kind")): str(record.get("json")) for record in journal.load()}
        lengths = OutputLengths.from_json(json.loads(records["lengths"])) if "lengths" in records else OutputLengths()
        return PoolState(lengths, _template(records.get("template", "{}")), _pools(records.get("pools", "{}")))
    except (SlurmPowerError, ValueError) as trouble:
        log.warning("starting without what was learnt before: %s", trouble)
        return PoolState()


def save_state(journal: Journal, state: PoolState) -> None:
    """Raise Unavailable when the disk refuses."""
    parts: dict[str, Any] = {
        "lengths": state.lengths.to_json(),
        "template": {str(slot): round(tokens, 3) for slot, tokens in state.template.items()},
        "pools": {str(job): pool.name for job, pool in state.pools.items()},
    }
    journal.write([{"kind": kind, "json": json.dumps(content)} for kind, content in parts.items()])


def _template(text: str) -> dict[int, float]:
    raw = json.loads(text)
    if not isinstance(raw, dict):
        raise ConfigError("template: must be a table")
    return {int(slot): max(0.0, float(tokens)) for slot, tokens in raw.items()}


def _pools(text: str) -> dict[int, RequestClass]:
    raw = json.loads(text)
    if not isinstance(raw, dict):
        raise ConfigError("pools: must be a table")
    return {int(job): pool for job, name in raw.items() if (pool := pool_of(str(name))) is not None}
