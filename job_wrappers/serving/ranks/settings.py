"""What every rank is told at start, from the same command line. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class RankSettings:
    paths: Mapping[str, Path]
    """Folders of the models, by name."""

    dtype: str
    attention: str
    block_tokens: int
    memory_bytes: int | None
    memory_fraction: float | None
