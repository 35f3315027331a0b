"""The emulated GPUs of a cluster's nodes: one state file per node, one library for all."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from slurm_power.testing.cluster.layout import ClusterLayout
from slurm_power.testing.cluster.settings import ClusterSettings
from slurm_power.testing.nvml_emulator.emulator import EmulatedNode, build_library


@cache
def nvml_directory() -> Path:
    """Folder of the emulator's libnvidia-ml.so.1, built if need be."""
    return build_library()


def make_emulated_gpus(layout: ClusterLayout, settings: ClusterSettings, *, fresh: bool) -> None:
    """One state file per node. Existing ones are kept, for a running job or agent may have them mapped."""
    for node_name in settings.node_names():
        state_file = layout.gpu_state(node_name)
        if fresh:
            state_file.unlink(missing_ok=True)
        if not state_file.exists() and settings.gpus_per_node:
            EmulatedNode.create(
                state_file,
                gpu_count=settings.gpus_per_node,
                base_watts=float(settings.node_base_watts),
                uuid_seed=node_name,
            ).close()
