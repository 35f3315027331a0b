"""etc/slurm-power-pool.toml shows every key of the pool manager's tables, and says what is a default."""

from __future__ import annotations

import re
import tomllib
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from slurm_power.compose_pool import TABLES
from slurm_power.site_config import owner_of, read_site_config

EXAMPLE = Path(__file__).resolve().parents[2] / "etc" / "slurm-power-pool.toml"


@pytest.mark.parametrize("table", TABLES)
def test_the_pool_example_names_every_key_and_no_other(table: str) -> None:
    section = re.search(rf"^\[{table}\]\n(.*?)(?=^\[|\Z)", EXAMPLE.read_text(), re.MULTILINE | re.DOTALL)
    assert section is not None
    named = re.findall(r"^(?:# )?([a-z_]+) = ", section.group(1), re.MULTILINE)
    assert sorted(named) == sorted(field.name for field in fields(owner_of(table)))


def test_the_pool_example_is_good_with_and_without_its_optional_keys(tmp_path: Path) -> None:
    text = EXAMPLE.read_text()
    assert read_site_config(EXAMPLE).given.keys() == set(TABLES)
    (tmp_path / "all.toml").write_text(re.sub(r"^# (?=[a-z_]+ = )", "", text, flags=re.MULTILINE))
    read_site_config(tmp_path / "all.toml")


def test_what_the_pool_example_calls_a_default_is_one() -> None:
    text, silent = EXAMPLE.read_text(), []
    values = tomllib.loads(text)
    for table in TABLES:
        defaults = {field.name: field.default for field in fields(owner_of(table)) if field.default is not MISSING}
        for key, value in values[table].items():
            line = next(line for line in text.splitlines() if line.startswith(f"{key} = "))
            shown = tuple(value) if isinstance(value, list) else value
            default = str(defaults[key]) if isinstance(defaults.get(key), Path) else defaults.get(key)
            if not re.search(r"SITE|default|absent", line) and shown != default:
                silent.append(f"[{table}] {key}")
    assert silent == []
