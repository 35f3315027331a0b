"""etc/sla-thresholds.toml shows every threshold with its default."""

from __future__ import annotations

import tomllib
from dataclasses import asdict
from pathlib import Path

import pytest

from slurm_power.errors import ConfigError
from slurm_power.site_config import read_dataclass
from slurm_power.sla.thresholds import QualityThresholds

FILE = Path(__file__).resolve().parents[2] / "etc" / "sla-thresholds.toml"


def test_the_file_that_is_shipped_is_the_default() -> None:
    assert read_dataclass(FILE, QualityThresholds) == QualityThresholds()
    assert tomllib.loads(FILE.read_text()) == asdict(QualityThresholds())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("[clock]\nwarn_mgz = 3", "warn_mgz", id="unknown-key"),
        pytest.param("[clocks]\nwarn_mhz = 3", "clocks", id="unknown-table"),
        pytest.param("[clock]\nwarn_mhz = 0", "must be above 0", id="nothing"),
        pytest.param("[clock]\nwarn_mhz = 100", "must not be below", id="critical-below-warn"),
        pytest.param("[data]\nloaded_fraction = 50", "at most 1", id="percent"),
        pytest.param('[thermal]\nlow_margin_celsius = "5"', "a number", id="text"),
    ],
)
def test_a_bad_threshold_is_one_clear_line(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "thresholds.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        read_dataclass(file, QualityThresholds)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
