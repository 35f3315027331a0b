"""Secrets are file paths in the config: the first line of a file that not everybody may read."""

from __future__ import annotations

import stat
from pathlib import Path

from slurm_power.errors import ConfigError, require


def read_secret(path: Path, *, key: str) -> str:
    """`key`: what the config calls it. Raise ConfigError for a file that cannot be read or that anybody may read."""
    try:
        if path.stat().st_mode & stat.S_IROTH:
            raise ConfigError(f"{key} = {path}: anybody may read it; run chmod o-r {path}")
        secret = path.read_text().partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as cause:
        raise ConfigError(f"{key} = {path}: {cause}") from cause
    require(secret.isprintable() and bool(secret), key, path, "its first line must be it, and not empty")
    return secret
