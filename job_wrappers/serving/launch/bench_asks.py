"""Which requests a benchmark sends, and when: from a trace of real arrivals, or made up."""

from __future__ import annotations

import csv
import itertools
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from job_wrappers.serving.errors import ConfigError

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
"""Of the Azure LLM inference traces, one request a row."""


@dataclass(frozen=True, slots=True)
class Ask:
    at_s: float
    """After the begin."""

    prompt_tokens: int
    new_tokens: int


def read_trace(path: Path, *, speed: float, requests: int | None) -> list[Ask]:
    """`speed`: how many times faster than recorded. Raise ConfigError naming the line that cannot be read."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            asks = list(itertools.islice(_rows(path, csv.DictReader(file)), requests))
    except (OSError, UnicodeDecodeError) as cause:
        raise ConfigError(f"--trace {path}: {cause}") from cause
    if not asks:
        raise ConfigError(f"--trace {path}: holds no request")
    first_s = min(ask.at_s for ask in asks)
    return sorted((replace(ask, at_s=(ask.at_s - first_s) / speed) for ask in asks), key=lambda ask: ask.at_s)


def _rows(path: Path, rows: csv.DictReader[str]) -> Iterator[Ask]:
    missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
    if missing:
        raise ConfigError(f"--trace {path}: has no column {missing[0]}; needed are {', '.join(COLUMNS)}")
    for row in rows:
        try:
            at = datetime.fromisoformat(row["TIMESTAMP"][:26])  # Azure writes seven digits of a second
            prompt, new = int(row["ContextTokens"]), int(row["GeneratedTokens"])
        except (ValueError, TypeError) as cause:
            raise ConfigError(f"--trace {path}: line {rows.line_num}: {cause}") from cause
        yield Ask(at.timestamp(), max(1, prompt), max(1, new))


def made_up(
    *,
    requests: int,
    rate_per_s: float | None,
    prompt_tokens: tuple[int, int],
    new_tokens: tuple[int, int],
    seed: int,
) -> list[Ask]:
    """Poisson arrivals; without a rate all at once. Lengths are drawn evenly between the two bounds."""
    dice = random.Random(seed)
    at_s, found = 0.0, []
    for _ in range(requests):
        at_s += dice.expovariate(rate_per_s) if rate_per_s is not None else 0.0
        found.append(Ask(at_s, dice.randint(*prompt_tokens), dice.randint(*new_tokens)))
    return found


def fitted(asks: Iterable[Ask], max_model_len: int) -> tuple[list[Ask], int]:
    """Cut to what the model can take, and how many had to be."""
    found, cut = [], 0
    for ask in asks:
        new = min(ask.new_tokens, max_model_len - 1)
        kept = replace(ask, new_tokens=new, prompt_tokens=min(ask.prompt_tokens, max_model_len - new))
        cut += kept != ask
        found.append(kept)
    return found, cut
