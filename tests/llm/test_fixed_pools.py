"""Pools that a site has named: each class finds one that holds it, each keeps an instance, the budget of GPUs holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slurm_power.llm import profiles
from slurm_power.llm.fixed_pools import plan_fixed_pools
from slurm_power.llm.fleet import FleetConfig
from slurm_power.llm.operating_point import Load
from slurm_power.llm.profile_json import parse_profile
from slurm_power.llm.request_class import REQUEST_CLASSES

SS, LL = REQUEST_CLASSES[0], REQUEST_CLASSES[-1]
FILE = Path(profiles.__file__).parent / "llama-8b-h100.json"
PROFILE = parse_profile(json.loads(FILE.read_text()), where=FILE.name)


@pytest.mark.parametrize(("per_s", "most_gpus"), [(0.0, 8), (30.0, 8), (3000.0, 8)])
def test_named_pools_always_exist_and_stay_within_the_gpus(per_s: float, most_gpus: int) -> None:
    load = {one: Load(per_s, 200.0 * per_s, 80.0 * per_s) for one in REQUEST_CLASSES}
    config = FleetConfig(most_gpus=most_gpus)
    plan = plan_fixed_pools(load, [SS], PROFILE, config, degrees=(1,), steered_clocks=True)
    assert set(plan.pools) == {SS, LL}
    assert {one.name: pool.name for one, pool in plan.serves.items()} == {
        one.name: "SS" if one == SS else "LL" for one in REQUEST_CLASSES
    }
    assert all(one.instances >= 1 for one in plan.pools.values())
    assert sum(one.gpus * one.instances for one in plan.pools.values()) <= most_gpus
