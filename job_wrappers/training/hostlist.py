"""Slurm's hostlist expressions (scontrol(1), "show hostnames") without asking Slurm. Pure."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from training.errors import ConfigError

MAX_HOSTS = 65536
"""As many nodes as Slurm itself can hold; a hostile range must not fill the memory."""

_PART = re.compile(r"([^\[\]]*)(?:\[([0-9,-]+)\])?")
_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")


def expand(text: str) -> list[str]:
    """`n[1-3,07],gpu-01` -> n1 n2 n3 n07 gpu-01. Raise ConfigError for what is not a hostlist."""
    hosts: list[str] = []
    for word in _words(text):
        hosts += _expand_word(word, text)
        if len(hosts) > MAX_HOSTS:
            raise ConfigError(f"hostlist = {text[:80]}: more than {MAX_HOSTS} hosts")
    if not hosts:
        raise ConfigError("hostlist = (empty): must name at least one host")
    return hosts


def first(text: str) -> str:
    return expand(text)[0]


def _words(text: str) -> Iterator[str]:
    """Cut at the commas outside brackets."""
    depth, word = 0, ""
    for letter in text:
        depth += (letter == "[") - (letter == "]")
        if letter == "," and depth == 0:
            yield word
            word = ""
        else:
            word += letter
    if depth != 0:
        raise ConfigError(f"hostlist = {text[:80]}: a bracket is not closed")
    if word:
        yield word


def _expand_word(word: str, text: str) -> Iterator[str]:
    pieces: list[list[str]] = []
    at = 0
    while at < len(word):
        found = _PART.match(word, at)
        if found is None or found.end() == at:
            raise ConfigError(f"hostlist = {text[:80]}: not understood from {word[at : at + 20]!r}")
        pieces.append([found.group(1)])
        if found.group(2) is not None:
            pieces.append(list(_numbers(found.group(2), text)))
        at = found.end()
    count = 1
    for piece in pieces:
        count *= len(piece)
    if not word or count > MAX_HOSTS:
        raise ConfigError(f"hostlist = {text[:80]}: an empty name, or more than {MAX_HOSTS} hosts")
    return ("".join(parts) for parts in itertools.product(*pieces))


def _numbers(ranges: str, text: str) -> Iterator[str]:
    """Leading zeros are kept: 001-003."""
    for one in ranges.split(","):
        found = _RANGE.fullmatch(one)
        low, high = (found.group(1), found.group(2) or found.group(1)) if found else ("1", "0")
        if not 0 <= int(high) - int(low) < MAX_HOSTS:
            raise ConfigError(f"hostlist = {text[:80]}: not a range: {one!r}")
        for number in range(int(low), int(high) + 1):
            yield str(number).zfill(len(low))
