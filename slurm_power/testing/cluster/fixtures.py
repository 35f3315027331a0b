"""Fixtures for tests that need a real Slurm: import `dev_cluster` and `slurm` into a conftest or a test module.

Mark such tests `cluster` and `xdist_group("cluster")` and run with `--dist loadgroup`: one worker, one cluster.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from slurm_power.errors import ConfigError, NotPermitted
from slurm_power.testing.cluster.dev_cluster import DevCluster
from slurm_power.testing.cluster.requirements import check_machine
from slurm_power.testing.cluster.settings import ClusterSettings
from slurm_power.testing.nvml_emulator.emulator import EmulatedNode


@pytest.fixture(scope="session")
def dev_cluster() -> Iterator[DevCluster]:
    """A cluster of its own for this test session; skipped where Slurm or root is missing."""
    with temporary_cluster(ClusterSettings()) as cluster:
        cluster.up()
        yield cluster


@pytest.fixture
def slurm(dev_cluster: DevCluster) -> Iterator[DevCluster]:
    """The session's cluster, whole, without jobs and reservations, GPUs as delivered, before and after one test."""
    _restore(dev_cluster)
    yield dev_cluster
    _restore(dev_cluster)


def _restore(cluster: DevCluster) -> None:
    cluster.up()
    cluster.cancel_everything()
    for node in cluster.node_names():
        with EmulatedNode.open(cluster.gpu_state(node)) as gpus:
            gpus.restore_as_delivered()


@contextmanager
def temporary_cluster(settings: ClusterSettings) -> Iterator[DevCluster]:
    """A cluster that is not up yet, in a folder that other users can reach; gone without a trace at the end."""
    try:
        check_machine()
    except (ConfigError, NotPermitted) as reason:
        pytest.skip(str(reason))
    directory = Path(tempfile.mkdtemp(prefix="slurm-power-"))
    directory.chmod(0o755)
    cluster = DevCluster(directory, settings)
    try:
        yield cluster
    finally:
        cluster.down()
        shutil.rmtree(directory)
