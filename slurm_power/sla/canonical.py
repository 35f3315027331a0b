"""One text for one JSON content, and a hash for each of its values: so a changed number can be told. Pure."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from slurm_power.errors import ConfigError

DIGITS = 6


def canonical(content: object) -> bytes:
    """Keys sorted, no spaces, UTF-8. Raise ConfigError for what JSON cannot say."""
    try:
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode()
    except (TypeError, ValueError) as cause:
        raise ConfigError(f"cannot be written as JSON: {cause}") from cause


def sha256(content: object) -> str:
    return hashlib.sha256(canonical(content)).hexdigest()


def read_json(text: str) -> dict[str, Any]:
    """Strictly: a key that stands twice would show one number to us and another to others. Raise ConfigError."""
    try:
        content = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as cause:
        raise ConfigError(f"not JSON: {str(cause)[:100]}") from cause
    if not isinstance(content, dict):
        raise ConfigError("not a JSON object")
    return content


def rounded(content: Any) -> Any:
    """Floats to DIGITS, unknown ones to null; texts and keys of enums as plain texts."""
    if isinstance(content, Mapping):
        return {str(key): rounded(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [rounded(value) for value in content]
    if isinstance(content, float):
        return round(content, DIGITS) if math.isfinite(content) else None
    return str(content) if isinstance(content, str) else content


def leaf_hashes(content: object) -> dict[str, str]:
    """JSON pointer (RFC 6901) of each value that holds no others -> the start of its hash."""
    return {pointer: sha256([pointer, value])[:16] for pointer, value in leaves(content, "")}


def leaves(content: object, pointer: str) -> Iterator[tuple[str, object]]:
    if isinstance(content, Mapping) and content:
        for key, value in content.items():
            yield from leaves(value, f"{pointer}/{_escaped(str(key))}")
    elif isinstance(content, list) and content:
        for index, value in enumerate(content):
            yield from leaves(value, f"{pointer}/{index}")
    else:
        yield pointer, content


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return content


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")
