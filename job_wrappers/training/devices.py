"""Which GPU a rank computes on, by UUID: NVML's and Slurm's indices differ, and CUDA's depends on the environment."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from job_wrappers.training.place import RankPlace
from slurm_power.errors import SlurmPowerError
from training.errors import require
from training.parallel.plan import ParallelPlan

if TYPE_CHECKING:
    from slurm_power.testing.emulated_training_load import EmulatedTrainingLoad

log = logging.getLogger(__name__)

EMULATED_VARIABLES = ("SLURM_POWER_EMULATED_LOAD", "SLURM_POWER_EMULATED_NODE")
"""The first, set to 1, lets a training on a CPU draw power on the GPUs of the second."""


def cuda_index(place: RankPlace) -> int | None:
    """Of this rank's GPU among those that it sees: srun may show a task all of the node's, or only its own. None on a
    CPU. Raise ConfigError when ranks would have to share one. Imports torch."""
    import torch

    if not torch.cuda.is_available():
        return None
    visible = torch.cuda.device_count()
    if visible == 1:
        return 0
    require(visible >= place.local_size, "GPUs", visible, f"{place.node_name} runs {place.local_size} ranks, one a GPU")
    return place.local_rank


def own_gpu(place: RankPlace, index: int | None, environ: Mapping[str, str]) -> str | None:
    """`index` as cuda_index has it. None on a CPU without emulated GPUs. Imports torch."""
    if index is None:
        return emulated_gpu(place, environ)
    import torch

    uuid = str(torch.cuda.get_device_properties(torch.device("cuda", index)).uuid)
    return uuid if uuid.startswith("GPU-") else f"GPU-{uuid}"


def emulated_gpu(place: RankPlace, environ: Mapping[str, str]) -> str | None:
    if not is_emulated(environ):
        return None
    from slurm_power.testing.emulated_load import job_gpus
    from slurm_power.testing.nvml_emulator.emulator import EmulatedNode

    try:
        with EmulatedNode.open_from_environment() as node:
            gpus = job_gpus(environ, node)
    except SlurmPowerError as error:
        log.warning("no emulated GPU: %s", error)
        return None
    return gpus[place.local_rank % len(gpus)]


def emulated_load(gpu: str | None, plan: ParallelPlan, environ: Mapping[str, str]) -> EmulatedTrainingLoad | None:
    if gpu is None or not is_emulated(environ):
        return None
    from slurm_power.testing.emulated_training_load import EmulatedTrainingLoad
    from slurm_power.testing.nvml_emulator.emulator import EmulatedNode

    return EmulatedTrainingLoad(
        EmulatedNode.open_from_environment(),
        gpu,
        sequences_per_step=plan.micro_batches * plan.micro_sequences,
        micro_sequences=plan.micro_sequences,
        chunks=plan.chunks,
    )


def is_emulated(environ: Mapping[str, str]) -> bool:
    asked, node = (environ.get(name, "") for name in EMULATED_VARIABLES)
    return asked == "1" and node != ""
