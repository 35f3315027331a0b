"""Writes a report's JSON, and its signature beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from slurm_power.cli.report_options import FILE, write_text
from slurm_power.sla.canonical import canonical, rounded
from slurm_power.sla.statement import statement

if TYPE_CHECKING:  # most reports are not signed, and the library takes a moment to load
    from slurm_power.adapters.report_keys import Ed25519PrivateKey

F = TypeVar("F", bound=Callable[..., Any])


def out_options(command: F) -> F:
    help_sign = "Sign what --out writes with this secret key (see keygen), into OUT.sig."
    command = click.option("--sign", "key_file", type=FILE, help=help_sign)(command)
    return click.option("--out", type=FILE, help="Write the JSON to this file.")(command)


def wanted_key(out: Path | None, key_file: Path | None) -> Ed25519PrivateKey | None:
    """Before anything is read or written: a bad key is told at once."""
    if key_file is None:
        return None
    if out is None:
        raise click.UsageError("--sign needs --out: the signature stands beside the file")
    from slurm_power.adapters.report_keys import read_secret_key

    return read_secret_key(key_file)


def write_out(content: dict[str, Any], out: Path | None, key: Ed25519PrivateKey | None) -> list[Path]:
    """What was written."""
    if out is None:
        return []
    exact = rounded(content)
    write_text(out, json.dumps(exact, indent=2, ensure_ascii=False) + "\n")
    if key is None:
        return [out]
    from slurm_power.adapters.report_keys import signature

    told = statement(exact)
    beside = out.with_name(f"{out.name}.sig")
    write_text(beside, json.dumps({"statement": told, "signature": signature(canonical(told), key)}, indent=1) + "\n")
    return [out, beside]
