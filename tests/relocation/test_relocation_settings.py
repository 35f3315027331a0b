"""[relocation]: a wrong value is named, with the rule it breaks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from slurm_power.errors import ConfigError
from slurm_power.relocation.settings import RelocationConfig

GOOD = RelocationConfig(
    license_total_watts=13_200,
    gpu_max_watts=700.0,
    gpu_idle_watts=70.0,
    min_gpu_cap_watts=200.0,
    node_base_watts=500.0,
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"firm_license_name": "watts"}, "firm_license_name = watts: must differ from license_name"),
        ({"license_name": "watts:5"}, "license_name = watts:5: letters, digits and _ only"),
        ({"license_total_watts": 0}, "license_total_watts = 0: must be above 0"),
        ({"min_gpu_cap_watts": 800.0}, "min_gpu_cap_watts = 800.0: must be above 0 and at most gpu_max_watts"),
        ({"gpu_idle_watts": -1.0}, "gpu_idle_watts = -1.0: must be in"),
        ({"max_deferred_fraction": 1.5}, "max_deferred_fraction = 1.5: must be in"),
        ({"reservation_levels": 0}, "reservation_levels = 0: must be above 0"),
        ({"curve_power_fractions": (0.0, 1.0)}, "must pair with the throughputs"),
    ],
)
def test_a_wrong_value_is_named_with_its_rule(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        replace(GOOD, **change)
    assert message in str(caught.value)
