"""Slurm's own notations: host lists, licences, GRES counts, versions. Pure.

Whatever cannot be read raises Unavailable: a guess about somebody's job is worse than a tick without a plan.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from slurm_power.errors import DeviceRefused, Unavailable

_MAX_HOSTS = 100_000  # a damaged range must not fill the memory
_HOST_PART = re.compile(r"([^,\[\]]*)(?:\[([^\]]*)\])?([^,\[\]]*)")
_GPU_COUNT = re.compile(r"(?:gres[:/])?gpu(?:[:/](?P<type>[A-Za-z_][\w.-]*))?(?:[:=](?P<count>\d+))?(?:\(.*\))?")
_LICENSE = re.compile(r"[A-Za-z][A-Za-z0-9_.@-]*")


def expand_hosts(text: str) -> tuple[str, ...]:
    """ "n[1-3,7],x" -> n1 n2 n3 n7 x, with leading zeros kept."""
    hosts: list[str] = []
    for word in _outer_words(text):
        hosts.extend(_expand_word(word))
        if len(hosts) > _MAX_HOSTS:
            raise Unavailable(f"unreadable host list {text[:80]!r}: too long")
    return tuple(hosts)


def parse_licenses(text: str) -> dict[str, int]:
    """ "watts:700,matlab" -> {"watts": 700, "matlab": 1}. Alternatives ("a:1|b:1") count as if all were taken."""
    licenses: dict[str, int] = {}
    if text in ("", "(null)"):
        return licenses
    for word in re.split(r"[,|;]", text):
        name, separator, count = word.strip().replace("=", ":").rpartition(":")
        if not separator:
            name, count = count, "1"
        if not count.isdigit() or not name:
            raise Unavailable(f"unreadable licences {text[:80]!r}")
        licenses[name] = licenses.get(name, 0) + int(count)
    return licenses


def licenses_text(licenses: Mapping[str, int]) -> str:
    """The other way round, for a request to Slurm. Raise DeviceRefused for what Slurm could misread."""
    for name, count in licenses.items():
        if _LICENSE.fullmatch(name) is None or count < 0:
            raise DeviceRefused(f"licence {name!r}: {count}: not a licence request")
    return ",".join(f"{name}:{count}" for name, count in licenses.items())


def gpu_count(text: str) -> int:
    """GPUs in one TRES or GRES list: "gres:gpu:2", "gpu:h100:2(S:0)", "gpu", "cpu=4,gres/gpu=2,gres/gpu:h100=2"."""
    total, typed = 0, 0
    for word in _outer_words(text):
        match = _GPU_COUNT.fullmatch(word.strip())
        if match is None:
            continue
        count = int(match["count"]) if match["count"] is not None else 1
        if match["type"] is None:
            total += count
        else:
            typed += count
    # A TRES list names the sum and the types it consists of; a GRES request names either.
    return total or typed


def detail_gpu_count(details: Iterable[str]) -> int:
    """GPUs of a running job: one entry per node, such as "gpu:2(IDX:0-1)"."""
    return sum(gpu_count(entry) for entry in details)


def release_of(version: str) -> tuple[int, int]:
    """ "22.05.8" or "slurm-wlm 22.05.8" -> (22, 5)."""
    match = re.search(r"(\d+)\.(\d+)", version)
    if match is None:
        raise Unavailable(f"unreadable Slurm version {version!r}")
    return int(match[1]), int(match[2])


def checked_comment(text: str) -> str:
    """An AdminComment that survives Slurm's own text formats. Raise DeviceRefused for control characters."""
    if len(text) > 1024 or any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise DeviceRefused("AdminComment: too long or with control characters")
    return text


def checked_name(name: str) -> str:
    """A reservation's name. Raise DeviceRefused for what scontrol could read as something else."""
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", name) is None:
        raise DeviceRefused(f"reservation name {name!r}: letters, digits and _ . - only")
    return name


def _outer_words(text: str) -> list[str]:
    """Split at commas outside brackets."""
    words, depth, word = [], 0, ""
    for character in text:
        depth += (character in "[(") - (character in "])")
        if character == "," and depth == 0:
            words.append(word)
            word = ""
        else:
            word += character
    words.append(word)
    return [word for word in words if word and word != "(null)"]


def _expand_word(word: str) -> list[str]:
    match = _HOST_PART.fullmatch(word)
    if match is None:
        raise Unavailable(f"unreadable host list {word[:80]!r}")
    prefix, ranges, suffix = match.groups()
    if ranges is None:
        return [prefix]
    return [f"{prefix}{number}{suffix}" for part in ranges.split(",") for number in _numbers(part)]


def _numbers(part: str) -> list[str]:
    first, dash, last = part.partition("-")
    if not first.isdigit() or (dash and not last.isdigit()):
        raise Unavailable(f"unreadable host range {part[:40]!r}")
    if not dash:
        return [first]
    if int(last) - int(first) > _MAX_HOSTS:
        raise Unavailable(f"unreadable host range {part[:40]!r}: too long")
    return [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
