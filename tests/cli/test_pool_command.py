"""slurm-power-pool refuses what it cannot run on, in one line, before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from slurm_power.cli.pool import pool
from slurm_power.errors import ConfigError

GOOD = {
    "serving_pools": {
        "model": '"/models/large"', "profile": '"llama-8b-h100"', "gpus_per_instance": "1", "most_instances": "2",
        "sbatch_script": '"/serve.sbatch"', "endpoints": '"{folder}/endpoints"', "state_path": '"{folder}/state"',
    },
    "router": {"listen_port": "0"},
}  # fmt: skip


def config(folder: Path, **changed: str) -> str:
    """`table.key = value`, with the table's name before two underscores."""
    tables = {name: dict(values) for name, values in GOOD.items()}
    for name, value in changed.items():
        table, _, key = name.partition("__")
        tables[table][key] = value
    text = "".join(
        f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())
        for name, values in tables.items()
    )
    path = folder / "pool.toml"
    path.write_text(text.replace("{folder}", str(folder)))
    return str(path)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"serving_pools__profile": '"nowhere"'}, "the product has llama-70b-h100, llama-8b-h100"),
        ({"serving_pools__gpus_per_instance": "3"}, "GPUs, not 3"),
        ({"serving_pools__owner": '"../x"'}, "owner = ../x: must be letters, digits and dashes"),
        ({"serving_pools__least_instances": "5"}, "must be 1 to most_instances"),
        ({"serving_pools__pools": '["XX"]'}, "pools = XX: must be of SS"),
        ({"serving_pools__small_model": '"/models/small"'}, "small_profile"),
        ({"router__listen_host": '"0.0.0.0"'}, "needs api_keys_file"),
        ({"router__api_keys_file": '"{folder}/none"'}, "No such file"),
        ({"router__tbt_s": "0"}, "tbt_s = 0.0: must be above 0"),
    ],
)
def test_a_bad_config_is_one_line_that_names_key_and_rule(tmp_path: Path, changed: dict[str, str], said: str) -> None:
    done = CliRunner().invoke(pool, ["--config", config(tmp_path, **changed)])
    assert isinstance(done.exception, ConfigError)
    assert said in str(done.exception)


def test_keys_that_others_may_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("alice:0123456789abcdef\n")
    (tmp_path / "keys").chmod(0o644)
    done = CliRunner().invoke(pool, ["--config", config(tmp_path, router__api_keys_file='"{folder}/keys"')])
    assert "others may read it" in str(done.exception)


def test_a_folder_of_endpoints_that_others_may_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "endpoints").mkdir()
    (tmp_path / "endpoints").chmod(0o777)
    done = CliRunner().invoke(pool, ["--config", config(tmp_path)])
    assert "writable by nobody else" in str(done.exception)


def test_an_unknown_layer_is_wrong_usage(tmp_path: Path) -> None:
    done = CliRunner().invoke(pool, ["--config", config(tmp_path), "--layers", "queue,kv"])
    assert (done.exit_code, "must be of instance, queue, cluster" in done.output) == (2, True)
