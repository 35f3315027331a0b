"""A published rate as the site's tariff: read from its file, refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slurm_power.adapters.rate_file import read_rate
from slurm_power.compose import site_rates
from slurm_power.errors import ConfigError
from slurm_power.ess.rate_schedule import RateSchedule
from slurm_power.site_config import read_site_config
from tests.urdb_rates import FLAT_RATE


def test_a_site_may_plan_with_a_published_rate(tmp_path: Path) -> None:
    rate, site = tmp_path / "rate.json", tmp_path / "site.toml"
    rate.write_text(json.dumps(FLAT_RATE))
    site.write_text(f'[tariff]\nkind = "urdb"\nfile = "{rate}"\nzone = "Europe/Berlin"\n')
    rates = site_rates(read_site_config(site))
    assert isinstance(rates, RateSchedule)
    assert [component.tiers[-1].price for component in rates.demand_components] == [10.0]


@pytest.mark.parametrize(
    ("content", "zone", "says"),
    [
        ("[]", "UTC", "must hold a JSON object"),
        ("{", "UTC", "rate.json"),
        (json.dumps(FLAT_RATE | {"energyweekdayschedule": [[0] * 23] * 12}), "UTC", "energyweekdayschedule"),
        (json.dumps(FLAT_RATE), "Mars/Olympus", "time zone Mars/Olympus"),
        (None, "UTC", "No such file"),
    ],
)
def test_a_bad_rate_is_one_line_that_names_it(tmp_path: Path, content: str | None, zone: str, says: str) -> None:
    file = tmp_path / "rate.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=says) as raised:
        read_rate(file, zone)
    assert "\n" not in str(raised.value)
