"""The config file of a training run: what it may say, and how it refuses."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from training.errors import ConfigError
from training.run.config import RunConfig, parallel_plan, read_config
from training.run.config_text import example_config, explain
from training.run.toml_tables import build

KEYS = {
    "model": ("preset", "folder", "from_scratch"),
    "data": (
        "dataset",
        "sequence_length",
        "held_out",
        "held_out_fraction",
        "evaluate_every_steps",
        "evaluate_batches",
    ),
    "batch": ("global_sequences", "micro_sequences"),
    "parallel": ("pipeline", "tensor", "data", "expert", "schedule", "zero_stage", "measure_layers"),
    "precision": ("policy", "backend", "power_of_two_scales", "weight_gradient"),
    "optimizer": (
        "kind",
        "learning_rate",
        "warmup_steps",
        "steps",
        "final_learning_rate_fraction",
        "weight_decay",
        "beta1",
        "beta2",
        "gradient_clipping",
        "router_bias_speed",
    ),
    "checkpoint": ("folder", "every_steps", "keep", "asynchronous"),
    "power": ("grace_s", "requeue_exit_code", "ramp_watts_per_s", "idle_watts", "full_watts"),
    "run": ("folder", "seed", "log_every_steps", "watchdog_s", "peak_flops_per_s"),
}


def example(**changes: Any) -> RunConfig:
    """The example with `table__key=value` changes; a value of None takes the key out."""
    values = tomllib.loads(example_config())
    for name, value in changes.items():
        table, _, key = name.partition("__")
        if value is None:
            del values[table][key]
        else:
            values[table][key] = value
    return build(RunConfig, values, where="run.toml:")


def test_the_keys_are_frozen():
    config = example()
    found = {table.name: tuple(field.name for field in fields(getattr(config, table.name))) for table in fields(config)}
    assert found == KEYS


def test_the_example_is_a_config(tmp_path: Path):
    path = tmp_path / "run.toml"
    path.write_text(example_config())
    config = read_config(path)
    assert config.batch.global_sequences == 32
    assert config.checkpoint_folder == Path("runs/example/checkpoints")


def test_the_example_names_every_key():
    for keys in KEYS.values():
        for key in set(keys) - {"from_scratch", "measure_layers", "router_bias_speed"}:
            assert key in example_config()


def test_explain_names_every_key_and_what_follows():
    text = explain(example())
    for keys in KEYS.values():
        for key in keys:
            assert f"  {key} = " in text
    assert "1000 steps of 8,192 tokens: 8,192,000 tokens in all" in text


def test_explain_tells_how_long_the_ramp_takes():
    config = example(power__ramp_watts_per_s=500, power__idle_watts=800, power__full_watts=5800)
    assert "power rises from 800 W to 5800 W in 10 s" in explain(config)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        pytest.param(
            {"batch__micro_sequnces": 2},
            "[batch] micro_sequnces = 2: unknown key; known are global_sequences, micro_sequences",
            id="unknown-key",
        ),
        pytest.param(
            {"optimizer__gradient_clipping": None},
            "[optimizer] gradient_clipping: missing; it has no default",
            id="clipping-has-no-default",
        ),
        pytest.param(
            {"optimizer__steps": "many"}, "[optimizer] steps = 'many': must be a whole number", id="wrong-type"
        ),
        pytest.param(
            {"optimizer__steps": True}, "[optimizer] steps = True: must be a whole number", id="bool-is-no-int"
        ),
        pytest.param(
            {"parallel__data": "all"}, "[parallel] data = 'all': must be a whole number or one of \"auto\"", id="choice"
        ),
        pytest.param(
            {"precision__policy": "fp4"},
            '[precision] policy = \'fp4\': must be one of "fp8", "bf16", "fp32"',
            id="unknown-policy",
        ),
        pytest.param(
            {"data__sequence_length": 100, "batch__micro_sequences": 1},
            "[batch] micro_sequences = 1: x [data] sequence_length = 100 tokens: must be a multiple of 128 with FP8",
            id="fp8-tile",
        ),
        pytest.param(
            {"parallel__data": 3},
            "[batch] global_sequences = 32: must be a multiple of [parallel] data 3 x micro_sequences 4 = 12",
            id="global-batch",
        ),
        pytest.param(
            {"model__folder": "x"}, "[model] preset = tiny-v3: give preset or folder, not both (folder = x)", id="both"
        ),
        pytest.param({"model__preset": None}, "[model] preset = (none): give preset or folder", id="no-model"),
        pytest.param(
            {"power__ramp_watts_per_s": 5.0},
            "[power] idle_watts = (none): needed with ramp_watts_per_s = 5.0",
            id="ramp",
        ),
        pytest.param(
            {"power__ramp_watts_per_s": 5.0, "power__idle_watts": 9.0, "power__full_watts": 9.0},
            "[power] full_watts = 9.0: must be above idle_watts = 9.0",
            id="ramp-to-nowhere",
        ),
        pytest.param(
            {"power__requeue_exit_code": 3},
            "[power] requeue_exit_code = 3: must be in 1..125, not 3, 5, 6",
            id="requeue-code-means-something-else",
        ),
        pytest.param(
            {"optimizer__gradient_clipping": -1.0},
            "[optimizer] gradient_clipping = -1.0: must be 0 (no limit) or positive",
            id="negative-clipping",
        ),
        pytest.param(
            {"optimizer__learning_rate": float("nan")},
            "[optimizer] learning_rate = nan: must be positive",
            id="nan-is-no-rate",
        ),
    ],
)
def test_a_bad_value_is_refused_in_one_line(changes: dict[str, Any], line: str):
    with pytest.raises(ConfigError) as refused:
        example(**changes)
    assert str(refused.value) == f"run.toml: {line}"


def test_an_unknown_and_a_missing_table_are_named():
    values = tomllib.loads(example_config())
    with pytest.raises(ConfigError, match=r"^run.toml: \[optimiser\]: unknown table; known are model, data, batch"):
        build(RunConfig, {**values, "optimiser": {}}, where="run.toml:")
    del values["data"]
    with pytest.raises(ConfigError, match=r"^run.toml: \[data\]: missing table$"):
        build(RunConfig, values, where="run.toml:")


@pytest.mark.parametrize("text", [b"[model", b"\xff\xfe"])
def test_a_file_that_is_not_toml_is_refused_in_one_line(tmp_path: Path, text: bytes):
    path = tmp_path / "run.toml"
    path.write_bytes(text)
    with pytest.raises(ConfigError, match="not TOML") as refused:
        read_config(path)
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_refused_in_one_line(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"nowhere.toml: No such file or directory$"):
        read_config(tmp_path / "nowhere.toml")


def test_auto_takes_the_ranks_that_are_left():
    plan = parallel_plan(example(parallel__pipeline=2), world_size=4)
    assert (plan.pipeline, plan.tensor, plan.data, plan.micro_batches) == (2, 1, 2, 4)
    assert plan.global_sequences == 32


@pytest.mark.parametrize(
    ("changes", "ranks", "line"),
    [
        ({"parallel__pipeline": 2, "parallel__tensor": 2}, 6, "[parallel] pipeline x tensor = 4: there are 6 ranks"),
        ({"parallel__data": 2}, 4, "[parallel] pipeline x tensor x data = 1 x 1 x 2 = 2: there are 4 ranks"),
        ({}, 3, "[batch] global_sequences = 32: must be a multiple of [parallel] data 3 x micro_sequences 4 = 12"),
    ],
)
def test_ranks_that_do_not_fit_are_refused(changes: dict[str, Any], ranks: int, line: str):
    with pytest.raises(ConfigError) as refused:
        parallel_plan(example(**changes), world_size=ranks)
    assert str(refused.value).startswith(line)


def test_configs_and_records_are_read_without_torch():
    modules = ("run.config", "run.config_text", "run.records", "run.control", "run.ramp", "data.order", "data.prepare")
    code = "import sys\n" + "".join(f"import training.{module}\n" for module in modules)
    subprocess.run([sys.executable, "-c", code + "assert 'torch' not in sys.modules"], check=True, timeout=60)
