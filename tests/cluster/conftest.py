"""Everything under tests/cluster runs on a real Slurm cluster; what computes with torch in a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from slurm_power.testing.cluster.fixtures import dev_cluster, slurm

__all__ = ["dev_cluster", "slurm"]

_HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            computes = item.get_closest_marker("torch") is not None
            item.add_marker(pytest.mark.xdist_group("cluster-torch" if computes else "cluster"))
