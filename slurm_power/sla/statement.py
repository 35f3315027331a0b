"""What is signed about a report, and how a report is held against it. Pure: the signature itself is the caller's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slurm_power.errors import ConfigError
from slurm_power.sla.canonical import leaf_hashes, sha256

FORMAT = "slurm-power/report-signature/1"
MAX_SHOWN = 20

_KEYS = {"format", "report_sha256", "samples_sha256", "values"}


def statement(report: Mapping[str, Any]) -> dict[str, Any]:
    """The hash of the whole, of the readings it was made from, and of each single value."""
    return {
        "format": FORMAT,
        "report_sha256": sha256(report),
        "samples_sha256": report.get("samples_sha256"),
        "values": leaf_hashes(report),
    }


def check_statement(content: Mapping[str, Any]) -> None:
    """Raise ConfigError for what is no statement of this format."""
    if content.get("format") != FORMAT or set(content) != _KEYS or not isinstance(content["values"], dict):
        raise ConfigError(f"not a signature of the format {FORMAT}")


def differences(report: Mapping[str, Any], signed: Mapping[str, Any]) -> list[str]:
    """What of the report is not what was signed, a line each; empty: all is as signed."""
    if sha256(report) == signed["report_sha256"]:
        return []
    now, then = leaf_hashes(report), signed["values"]
    found = [f"{pointer}: added after signing" for pointer in now if pointer not in then]
    found += [f"{pointer}: was taken out after signing" for pointer in then if pointer not in now]
    found += [f"{pointer}: changed after signing" for pointer in now if then.get(pointer, now[pointer]) != now[pointer]]
    return sorted(found) or ["the report as a whole is not the one that was signed"]


def sample_differences(report: Mapping[str, Any], present: Mapping[str, Any]) -> list[str]:
    """A report against one made anew from the store: which GPU's readings are not those it was made from."""
    if report.get("samples_sha256") == present["samples_sha256"]:
        return []
    found = []
    stored = {gpu["uuid"]: gpu["data"] for gpu in present["gpus"]}
    for gpu in report.get("gpus", ()):
        then, now = gpu["data"], stored.pop(gpu["uuid"], None)
        if now is None:
            found.append(f"{gpu['uuid']}: the store has no readings of it any more")
        elif now["samples_sha256"] != then["samples_sha256"]:
            count = f"{now['samples']} readings now, {then['samples']} when the report was made"
            found.append(f"{gpu['uuid']}: the store's readings are not the same ({count})")
    found += [f"{uuid}: the store has readings of a GPU that is not in the report" for uuid in stored]
    return found or ["samples_sha256: is not the hash of the readings"]
