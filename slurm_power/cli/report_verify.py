"""slurm-power report verify and keygen: what a customer needs to detect a changed number."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import click

from slurm_power.adapters.report_keys import is_signed, make_keys, read_public_key
from slurm_power.cli.config_option import config_option
from slurm_power.cli.report_options import opened_store, progress
from slurm_power.cli.words import printable
from slurm_power.errors import ConfigError
from slurm_power.site_config import read_site_config
from slurm_power.sla.canonical import canonical, read_json
from slurm_power.sla.statement import MAX_SHOWN, check_statement, differences, sample_differences

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("report_file", metavar="REPORT.json", type=_FILE)
@click.argument("signature_file", metavar="SIGNATURE", type=_FILE)
@click.option("--key", "key_file", type=_FILE, required=True, help="The signer's public key, got by another way.")
@click.option("--samples", is_flag=True, help="Also hold the report against the samples in the store.")
@config_option
def verify(report_file: Path, signature_file: Path, key_file: Path, samples: bool, config_path: Path) -> None:
    """Check that a report is what was signed; say what is not.

    Exit code 0: all is as signed. 3: something is not.
    """
    report, signed = _read(report_file), _read(signature_file)
    told = signed.get("statement")
    if not isinstance(told, dict) or set(signed) != {"statement", "signature"}:
        raise ConfigError(f"{signature_file}: not a signature file")
    check_statement(told)
    if not is_signed(canonical(told), str(signed["signature"]), read_public_key(key_file)):
        raise ConfigError(f"{signature_file}: not signed with {key_file}, or changed since: nothing it says counts")
    _fail(report_file, differences(report, told))
    click.echo(f"{report_file}: as signed, every value ({len(told['values'])} of them).")
    if samples:
        made_of = report.get("quality", report)  # a job's screen holds its quality report
        if "gpus" not in made_of:
            raise ConfigError(f"{report_file}: this kind of report names no samples; leave --samples out")
        _fail(report_file, _against_store(made_of, config_path))
        click.echo(f"The store's samples are those it was made from ({made_of['data']['samples']} of them).")


@click.command()
@click.argument("secret_file", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
def keygen(secret_file: Path) -> None:
    """Make a key for signing reports: FILE is secret, FILE.pub is for those who verify."""
    public_file = secret_file.with_name(f"{secret_file.name}.pub")
    make_keys(secret_file, public_file)
    click.echo(f"Secret key: {secret_file} (keep it; mode 0600). Public key: {public_file} (hand it out).")


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as cause:
        raise ConfigError(f"{path}: {cause}") from cause
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _fail(report_file: Path, found: list[str]) -> None:
    """Values are not shown: only where they are."""
    if not found:
        return
    for line in found[:MAX_SHOWN]:
        click.echo(printable(line), err=True)
    more = f", {MAX_SHOWN} of them shown" if len(found) > MAX_SHOWN else ""
    raise ConfigError(f"{report_file}: not what was signed: {len(found)} differences{more}")


def _against_store(report: dict[str, Any], config_path: Path) -> list[str]:
    """The report's own windows, read anew."""
    from slurm_power.adapters import quality_report
    from slurm_power.adapters.quality_samples import GpuName, StoredQuality
    from slurm_power.sla.board import Window
    from slurm_power.sla.report import Scope, report_json
    from slurm_power.sla.thresholds import QualityThresholds

    config = read_site_config(config_path, only=("store",))
    windows = {
        GpuName(gpu["node"], gpu["uuid"]): [
            Window(_seconds(one["since"]), _seconds(one["until"])) for one in gpu["windows"]
        ]
        for gpu in report["gpus"]
    }
    scope = Scope(kind="site", since_wall_s=0.0, until_wall_s=0.0)
    with opened_store(config) as store, progress("reading samples", quiet=False) as tell:
        made = quality_report.of_windows(
            StoredQuality(store), windows, scope=scope, thresholds=QualityThresholds(), tell=tell
        )
    return sample_differences(report, report_json(made, made_wall_s=0.0, made_by=""))


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
