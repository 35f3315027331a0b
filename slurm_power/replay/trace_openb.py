"""Pods and nodes of alibaba_openb (clusterdata, v2023).

A pod runs from `scheduled_time` to `deletion_time`. A pod that asks for a share of one GPU (gpu_milli below 1000)
gets a whole GPU here, for Slurm hands out whole GPUs. Pods without a GPU, and pods that were never scheduled (their
run time is unknown), are left out and counted. The trace has no users and no time limits.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from slurm_power.errors import ConfigError
from slurm_power.relocation.jobs import PowerClass
from slurm_power.replay.trace import BadLine, Trace, TraceJob, collected

QOS_CLASSES: Mapping[str, PowerClass] = MappingProxyType(
    {
        "LS": PowerClass.FIRM,  # latency sensitive: services that people wait for
        "Guaranteed": PowerClass.FIRM,
        "Burstable": PowerClass.FLEXIBLE,
        "BE": PowerClass.PREEMPTIBLE,  # best effort: the origin evicts it, too
    }
)

_POD_COLUMNS = ("name", "num_gpu", "gpu_milli", "qos", "creation_time", "deletion_time", "scheduled_time")
_LIMIT_STEP_S = 900.0


def read_openb_pods(
    lines: Iterable[str], *, qos_classes: Mapping[str, PowerClass] = QOS_CLASSES, limit_factor: float | None = 2.0
) -> Trace:
    """`limit_factor`: users ask for so many times what they need, rounded up to a quarter hour; None: unlimited."""
    reader = csv.DictReader(lines)
    missing = [name for name in _POD_COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise ConfigError(f"openb pods: there is no column {', '.join(missing)}")
    jobs, bad, skipped = [], [], Counter[str]()
    shared = 0
    for row in reader:
        try:
            found = _pod(row, qos_classes, limit_factor)
        except (TypeError, ValueError, KeyError) as cause:
            bad.append(BadLine(reader.line_num, f"unreadable pod: {cause}"))
            continue
        if isinstance(found, str):
            skipped[found] += 1
        else:
            jobs.append(found)
            shared += row["gpu_milli"] != "1000"
    limits = "no time limits" if limit_factor is None else f"time limits assumed: {limit_factor:g} x the run time"
    mapped = ", ".join(f"{qos} is {power_class.value}" for qos, power_class in qos_classes.items())
    notes = (f"{shared} pods asked for a share of a GPU and get a whole one", limits, mapped)
    return collected(jobs, file_kind="openb pods", skipped=skipped, bad_lines=bad, notes=notes)


def read_openb_nodes(lines: Iterable[str]) -> tuple[int, ...]:
    """GPUs of each node that has any."""
    reader = csv.DictReader(lines)
    if "gpu" not in (reader.fieldnames or ()):
        raise ConfigError("openb nodes: there is no column gpu")
    try:
        gpus = tuple(int(row["gpu"]) for row in reader)
    except (TypeError, ValueError) as cause:
        raise ConfigError(f"openb nodes: line {reader.line_num}: {cause}") from cause
    with_gpus = tuple(count for count in gpus if count > 0)
    if not with_gpus:
        raise ConfigError("openb nodes: no node has a GPU")
    return with_gpus


def _pod(row: Mapping[str, str], classes: Mapping[str, PowerClass], limit_factor: float | None) -> TraceJob | str:
    """The job, or why it is none."""
    gpus = int(row["num_gpu"])
    if gpus == 0:
        return "no GPU asked for"
    if not row["scheduled_time"]:
        return "never scheduled"
    submit_s, start_s, end_s = (float(row[f"{name}_time"]) for name in ("creation", "scheduled", "deletion"))
    if gpus < 0 or not submit_s <= start_s <= end_s < math.inf:
        raise ValueError("its times or GPUs make no sense")
    if end_s == start_s:
        return "ended in the second in which it started"
    runtime_s = end_s - start_s
    if row["qos"] not in classes:
        raise ValueError(f"qos {row['qos']!r} is unknown, only {', '.join(classes)}")
    return TraceJob(
        job_id=0,
        user="openb",
        submit_s=submit_s,
        gpus=gpus,
        runtime_s=runtime_s,
        time_limit_s=None if limit_factor is None else assumed_limit_s(runtime_s, limit_factor),
        power_class=classes[row["qos"]],
        source_id=row["name"],
    )


def assumed_limit_s(runtime_s: float, factor: float) -> float:
    return math.ceil(max(1.0, factor) * runtime_s / _LIMIT_STEP_S) * _LIMIT_STEP_S
