"""What a cluster directory was last brought up with, so that a later command finds the same cluster."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from slurm_power.errors import ConfigError
from slurm_power.testing.cluster.settings import ClusterSettings


@dataclass(frozen=True, slots=True)
class ClusterRecord:
    settings: ClusterSettings
    ports: Sequence[int]


def read_record(file: Path) -> ClusterRecord | None:
    """None when there is none yet; raise ConfigError when it is not ours."""
    try:
        values = json.loads(file.read_text())
        return ClusterRecord(ClusterSettings(**values["settings"]), [int(port) for port in values["ports"]])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as cause:
        raise ConfigError(f"{file}: not a record of a development cluster ({cause})") from cause


def write_record(file: Path, record: ClusterRecord) -> None:
    temporary = file.with_suffix(".new")
    temporary.write_text(json.dumps({"settings": asdict(record.settings), "ports": list(record.ports)}, indent=1))
    temporary.replace(file)
