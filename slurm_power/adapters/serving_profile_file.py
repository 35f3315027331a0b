"""Profiles of the serving engine: a JSON file, or one that comes with the product, by its name."""

from __future__ import annotations

import json
from pathlib import Path

from slurm_power.errors import ConfigError
from slurm_power.llm.profile import ServingProfile
from slurm_power.llm.profile_json import parse_profile

_SHIPPED = Path(__file__).resolve().parents[1] / "llm" / "profiles"


def read_serving_profile(path: Path) -> ServingProfile:
    """Raise ConfigError, also with the names of those that come with the product."""
    shipped = _SHIPPED / f"{path.name}.json"
    found = shipped if path == Path(path.name) and not path.suffix and shipped.is_file() else path
    try:
        raw = json.loads(found.read_text(encoding="utf-8"))
    except OSError as cause:
        known = ", ".join(sorted(each.stem for each in _SHIPPED.glob("*.json")))
        raise ConfigError(f"profile {path}: {cause.strerror}; the product has {known}") from cause
    except (ValueError, RecursionError) as cause:
        raise ConfigError(f"profile {path}: not JSON: {cause}") from cause
    return parse_profile(raw, where=f"profile {path}")
