"""The tables and keys of slurm-power.toml with their defaults, frozen in config_keys.json.

After a change on purpose run `.venv/bin/python tests/surface/test_config_surface.py`
and look at the diff of that file.
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import MISSING, fields
from pathlib import Path

import pytest
from click.testing import CliRunner

from slurm_power.cli.main import slurm_power
from slurm_power.site_config import OWNERS, owner_of

GOLDEN = Path(__file__).with_name("config_keys.json")
EXAMPLE = Path(__file__).resolve().parents[2] / "etc" / "slurm-power.toml"
NO_DEFAULT = "(no default)"


def keys_of(table: str) -> dict[str, str]:
    return {field.name: _default(field.default) for field in fields(owner_of(table)) if field.init}


def _default(value: object) -> str:
    return NO_DEFAULT if value is MISSING else str(value)


def test_the_tables_and_keys_are_the_frozen_ones() -> None:
    assert {table: keys_of(table) for table in OWNERS} == json.loads(GOLDEN.read_text())


def test_safety_limits_have_no_default() -> None:
    limits = {
        "site": {"grid_limit_watts", "it_max_watts", "pue"},
        "battery": {"capacity_joules", "max_charge_watts", "max_discharge_watts"},
        "relocation": {"license_total_watts", "gpu_max_watts", "min_gpu_cap_watts"},
        "pcs": {"revert_s"},
        "meter": {"import_is_positive"},
        "agent": {"safe_cap_watts"},
    }
    for table, names in limits.items():
        without = {name for name, default in keys_of(table).items() if default == NO_DEFAULT}
        assert names <= without


def test_the_example_passes_the_check() -> None:
    done = CliRunner().invoke(slurm_power, ["config", "check", str(EXAMPLE)], catch_exceptions=False)
    assert (done.exit_code, "good" in done.output, "absent" in done.output) == (0, True, False)


@pytest.mark.parametrize("table", OWNERS)
def test_the_example_names_every_key_and_no_other(table: str) -> None:
    """Keys without a value of their own stand in a comment."""
    section = re.search(rf"^\[{table}\]\n(.*?)(?=^\[|\Z)", EXAMPLE.read_text(), re.MULTILINE | re.DOTALL)
    assert section is not None
    named = re.findall(r"^(?:# )?([a-z_]+) = ", section.group(1), re.MULTILINE)
    assert sorted(named) == sorted(keys_of(table))


def test_the_examples_optional_values_are_good_too(tmp_path: Path) -> None:
    """Each `# key = value` comment, put to use, still passes the check."""
    text = re.sub(r"^# (?=[a-z_]+ = )", "", EXAMPLE.read_text(), flags=re.MULTILINE)
    assert len(tomllib.loads(text)["store"]) == len(keys_of("store"))
    (tmp_path / "all.toml").write_text(text)
    done = CliRunner().invoke(slurm_power, ["config", "check", str(tmp_path / "all.toml")], catch_exceptions=False)
    assert done.exit_code == 0


def test_what_the_example_calls_a_default_is_one() -> None:
    """A value that differs from its default says so: SITE, or "the default is", or "absent"."""
    values = tomllib.loads(EXAMPLE.read_text())
    silent = []
    for line in EXAMPLE.read_text().splitlines():
        if header := re.match(r"\[(\w+)\]$", line):
            table = header.group(1)
        found = re.match(r"([a-z_]+) = ", line)
        if found and not re.search(r"SITE|default|absent", line, re.IGNORECASE):
            value = values[table][found.group(1)]
            shown = str(tuple(value) if isinstance(value, list) else value)
            if shown != keys_of(table)[found.group(1)] and value != _number(table, found.group(1)):
                silent.append(f"[{table}] {found.group(1)}")
    assert silent == []


def _number(table: str, key: str) -> float | None:
    """The default as a number: 60 in the file is 60.0 in the code."""
    try:
        return float(keys_of(table)[key])
    except ValueError:
        return None


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({table: keys_of(table) for table in OWNERS}, indent=1) + "\n")
