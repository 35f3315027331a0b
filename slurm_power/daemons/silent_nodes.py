"""Nodes that Slurm counts as up but whose agent is silent: unknown draw, known to exist."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from slurm_power.monitoring.readings import GpuReading, NodeReading
from slurm_power.relocation.jobs import Node


def with_silent_nodes(readings: Mapping[str, NodeReading], nodes: Iterable[Node]) -> dict[str, NodeReading]:
    """`readings` and, for every other node that is up, one whose values are all unknown.

    A forecast that left them out would promise their watts away.
    """
    silent = {
        node.node_name: NodeReading(
            node_name=node.node_name,
            base_watts=None,
            gpus=tuple(_unknown_gpu(node.node_name, index) for index in range(node.gpus)),
            taken_at_s=0.0,
        )
        for node in nodes
        if node.up and node.node_name not in readings
    }
    return {**readings, **silent}


def _unknown_gpu(node_name: str, index: int) -> GpuReading:
    return GpuReading(
        uuid=f"{node_name}/{index}",
        draw_watts=None,
        energy_joules=None,
        sm_clock_mhz=None,
        temperature_celsius=None,
        utilisation_fraction=None,
        cap_watts=None,
        cap_source="found",
        job_id=None,
        error="its agent does not report",
    )
