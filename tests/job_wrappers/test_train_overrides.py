"""A config with values from the command line: as strictly read as the file itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from job_wrappers.training.overrides import read_config_with
from training.errors import ConfigError
from training.run.config import read_config
from training.run.config_text import example_config


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(example_config())
    return path


def test_without_overrides_the_file_holds(file: Path) -> None:
    assert read_config_with(file) == read_config(file)


def test_another_plan_keeps_what_it_does_not_name(file: Path) -> None:
    config = read_config_with(file, parallel="pipeline=2,data=4,schedule=dualpipev")
    assert (config.parallel.pipeline, config.parallel.data, config.parallel.schedule) == (2, 4, "dualpipev")
    assert config.parallel.expert == read_config(file).parallel.expert


def test_single_values_are_numbers_texts_or_paths(file: Path) -> None:
    settings = [
        "optimizer.steps=7",
        "optimizer.warmup_steps=0",
        "run.folder=runs/b",
        "run.seed=5",
        "precision.policy=bf16",
    ]
    config = read_config_with(file, settings=settings)
    assert (config.optimizer.steps, config.run.folder, config.run.seed) == (7, Path("runs/b"), 5)
    assert config.precision.policy == "bf16"


@pytest.mark.parametrize(
    ("parallel", "settings", "words"),
    [
        pytest.param("pipeline", (), "must be key=value", id="no-value"),
        pytest.param("pipelines=2", (), "unknown key", id="unknown-axis"),
        pytest.param("pipeline=two", (), "must be a whole number", id="not-a-number"),
        pytest.param(None, ("steps=2",), "must be table.key=value", id="no-table"),
        pytest.param(None, ("optimiser.steps=2",), "unknown table", id="unknown-table"),
        pytest.param(None, ("optimizer.steps=2\nx=1",), "must be a whole number", id="smuggled-key"),
    ],
)
def test_a_bad_override_is_one_clear_line(
    file: Path, parallel: str | None, settings: tuple[str, ...], words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        read_config_with(file, parallel=parallel, settings=settings)
    assert "\n" not in str(caught.value)
