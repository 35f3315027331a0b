"""Which back-end attends. Every one gives the same numbers, so this is a matter of speed alone."""

from __future__ import annotations

import logging

import torch

from job_wrappers.serving.attention.cpu import CpuAttention
from job_wrappers.serving.attention.interface import PagedAttention
from job_wrappers.serving.attention.reference import ReferenceAttention
from job_wrappers.serving.errors import require
from job_wrappers.serving.kernels import paged_cpu, paged_gpu

log = logging.getLogger(__name__)

NAMES = ("auto", "cpu", "triton", "reference")


def choose_attention(device: torch.device, name: str = "auto") -> PagedAttention:
    """Raise ConfigError for a name that is not known, or a back-end that does not run here."""
    require(name in NAMES, "attention", name, f"must be one of {', '.join(NAMES)}")
    if name in ("auto", "cpu") and device.type == "cpu" and paged_cpu.available():
        log.info("attention on %s: our C, over the blocks where they lie", device)
        return CpuAttention()
    if name in ("auto", "triton") and device.type == "cuda" and paged_gpu.gpu_kernels(device):
        from job_wrappers.serving.attention.gpu import GpuAttention

        log.info("attention on %s: our Triton kernel, over the blocks where they lie", device)
        return GpuAttention(device)
    rule = "needs a model on the CPU and a C compiler (cc)" if name == "cpu" else "needs a GPU that runs our kernel"
    require(name in ("auto", "reference"), "attention", name, f"{rule}; the model is on {device}")
    log.info("attention on %s: gathered blocks, PyTorch's own kernels", device)
    return ReferenceAttention()
