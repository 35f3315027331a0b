"""The emulated GPUs of a cluster's nodes: one state file per node, one library for all."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from typing import Any

from slurm_power.errors import ConfigError
from slurm_power.testing.cluster.layout import ClusterLayout, product_directory
from slurm_power.testing.cluster.settings import ClusterSettings


def _emulator() -> Any:
    try:
        return importlib.import_module("slurm_power.testing.nvml_emulator.emulator")
    except ImportError as cause:
        raise ConfigError(f"the NVML emulator is missing from this tree: {cause}") from cause


@cache
def nvml_directory() -> Path:
    """Folder of the emulator's libnvidia-ml.so.1, built if need be."""
    try:
        return Path(_emulator().build_library())
    except ConfigError:
        return product_directory() / "build" / "nvml"


def make_emulated_gpus(layout: ClusterLayout, settings: ClusterSettings, *, fresh: bool) -> None:
    """One state file per node. Existing ones are kept, for a running job or agent may have them mapped."""
    try:
        emulator = _emulator()
    except ConfigError:
        return
    for node_name in settings.node_names():
        state_file = layout.gpu_state(node_name)
        if fresh:
            state_file.unlink(missing_ok=True)
        if not state_file.exists() and settings.gpus_per_node:
            emulator.EmulatedNode.create(
                state_file,
                gpu_count=settings.gpus_per_node,
                base_watts=float(settings.node_base_watts),
                uuid_seed=node_name,
            ).close()
