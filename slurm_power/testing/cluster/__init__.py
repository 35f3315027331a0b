"""A real Slurm cluster of several nodes on one machine, in one directory, beside any other Slurm."""

from __future__ import annotations

from slurm_power.testing.cluster.dev_cluster import DevCluster
from slurm_power.testing.cluster.layout import ClusterLayout
from slurm_power.testing.cluster.settings import ClusterSettings
from slurm_power.testing.cluster.status import ClusterStatus

__all__ = ["ClusterLayout", "ClusterSettings", "ClusterStatus", "DevCluster"]
