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
from click.testing import CliRunner, Result

from slurm_power.cli.main import slurm_power
from slurm_power.monitoring.conservation import ConservationRules
from slurm_power.site_config import OPTIONAL, OTHER_KINDS, OWNERS, owner_of, owners_of

GOLDEN = Path(__file__).with_name("config_keys.json")
EXAMPLE = Path(__file__).resolve().parents[2] / "etc" / "slurm-power.toml"
NO_DEFAULT = "(no default)"


def keys_of(table: str) -> dict[str, str]:
    return keys_of_owner(owner_of(table))


def keys_of_owner(owner: type) -> dict[str, str]:
    return {field.name: _default(field.default) for field in fields(owner) if field.init}


def all_keys() -> dict[str, dict[str, str]]:
    """By table, also of a table's other kinds and of the table in a table."""
    kinds = {
        f"{table}, kind {keys['kind']}": keys
        for table in OTHER_KINDS
        for keys in map(keys_of_owner, owners_of(table)[1:])
    }
    return {
        **{table: keys_of(table) for table in OWNERS},
        **kinds,
        "parts.conservation": keys_of_owner(ConservationRules),
    }


def blocks() -> list[str]:
    """The tables that the example shows with a # before each line, without it."""
    shown = re.findall(r"(?:^#[^ \n].*\n)+", EXAMPLE.read_text(), re.MULTILINE)
    return [re.sub(r"^#", "", block, flags=re.MULTILINE) for block in shown]


def checked(file: Path) -> Result:
    return CliRunner().invoke(slurm_power, ["config", "check", str(file)], catch_exceptions=False)


def _default(value: object) -> str:
    return NO_DEFAULT if value is MISSING else str(value)


def test_the_tables_and_keys_are_the_frozen_ones() -> None:
    assert all_keys() == json.loads(GOLDEN.read_text())


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


@pytest.mark.parametrize("table", [table for table in OWNERS if table not in OPTIONAL])
def test_the_example_names_every_key_and_no_other(table: str) -> None:
    """Keys without a value of their own stand in a comment."""
    section = re.search(rf"^\[{table}\]\n(.*?)(?=^\[|\Z)", EXAMPLE.read_text(), re.MULTILINE | re.DOTALL)
    assert section is not None
    named = re.findall(r"^(?:# )?([a-z_]+) = ", section.group(1), re.MULTILINE)
    assert sorted(named) == sorted(keys_of(table))


@pytest.mark.parametrize("kind", ["snmp", "redfish", "parts"])
def test_the_example_shows_every_key_of_a_meters_other_kinds(kind: str) -> None:
    (owner,) = (one for one in owners_of("meter") if keys_of_owner(one)["kind"] == kind)
    shown = [block for block in blocks() if block.startswith("[meter]") and f'kind = "{kind}"' in block]
    named = {key for block in shown for key in tomllib.loads(block)["meter"]}
    assert named == set(keys_of_owner(owner))


def test_the_example_shows_every_key_of_the_conservation_check() -> None:
    (parts,) = (block for block in blocks() if block.startswith("[parts"))
    shown = tomllib.loads(parts)["parts"]["conservation"]
    assert {key: str(float(value)) for key, value in shown.items()} == keys_of_owner(ConservationRules)


@pytest.mark.parametrize("index", range(len(blocks())))
def test_each_table_that_the_example_shows_passes_the_check_when_put_to_use(tmp_path: Path, index: int) -> None:
    block, text = blocks()[index], EXAMPLE.read_text()
    for table in ("meter", "tariff"):
        if block.startswith(f"[{table}]"):
            text = re.sub(rf"^\[{table}\]\n(?:[^\n#\[].*\n)+", lambda _: block, text, flags=re.MULTILINE)
    parts = next(one for one in blocks() if one.startswith("[parts"))
    (tmp_path / "site.toml").write_text(f"{text}\n{parts}")
    done = checked(tmp_path / "site.toml")
    assert (done.exit_code, "absent" in done.output) == (0, False)
    if block.startswith("[meter]"):
        assert tomllib.loads(text)["meter"] == tomllib.loads(block)["meter"]


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
    GOLDEN.write_text(json.dumps(all_keys(), indent=1) + "\n")
