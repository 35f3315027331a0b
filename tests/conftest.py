"""Tests that start real servers run last, and never two of a kind at once, so that they have the machine."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

# Several workers share the cores: threads that spin for each other would take them from the rest.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine is no fault of what is tested.
settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")

_SERVERS = ("influxdb", "cluster")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _server_of(item) and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(_server_of(item)))
    items.sort(key=lambda item: bool(_server_of(item)))


def _server_of(item: pytest.Item) -> str:
    return next((name for name in _SERVERS if item.get_closest_marker(name)), "")
