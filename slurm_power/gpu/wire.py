"""Messages of the node agent: plain JSON objects, strictly parsed. Frozen by tests/surface.

Two lines:
- agent -> controller, HTTP POST /agent/report, body sealed by munge: AgentReport;
  answer sealed: NodeLease or `{}`.
- local Unix socket, one JSON object a line, one answer a line: `{"op": ...}` -> `{"ok": true, ...}` or
  `{"ok": false, "error": "..."}`. Ops (peer = SO_PEERCRED):
    job_begin  root only; the SPANK plugin at job prolog: job_id, uid, node, gpus (SLURM_JOB_GPUS, indices),
               visible (CUDA_VISIBLE_DEVICES: indices or UUIDs), options (the options' own
               text by name, see OPTIONS)
    task_begin root only; same fields as job_begin (a repeat is harmless; covers an agent restart)
    job_end    root only; job_id, node
    status     anyone; answers NodeReading's content with ages and, per GPU, cap and source
    my_gpus    job_id; owner of the job or root; answers {"uuids": [...], "node": name}
    set_cap    job_id, uuid, watts (null: withdraw); owner or root; may only lower
    set_clock  job_id, uuid, mhz (null: withdraw); owner or root; may only lower
    points     job_id, points: [{measurement, wall_s, fields, tags}]; owner or root; job id and uid
               are stamped by the agent
Between hosts ages travel, never timestamps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

OPTIONS = ("gpu-power-cap", "gpu-clock", "power-class", "power-max-slowdown", "power-max-delay")
"""The SPANK options, as typed after `--`; also the keys of `options` in job_begin."""

LOCAL_OPS = ("job_begin", "task_begin", "job_end", "status", "my_gpus", "set_cap", "set_clock", "points")

MAX_LINE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class GpuReport:
    uuid: str
    draw_watts: float | None
    energy_joules: float | None
    sm_clock_mhz: int | None
    temperature_celsius: float | None
    utilisation_fraction: float | None
    cap_watts: float | None
    cap_source: str
    min_cap_watts: float
    max_cap_watts: float
    job_id: int | None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class AgentReport:
    node_name: str
    base_watts: float | None
    age_s: float  # of the sample, when the report left the agent
    gpus: tuple[GpuReport, ...]
    lease_remaining_s: float | None  # None: no lease held, the safe cap applies


@dataclass(frozen=True, slots=True)
class NodeLease:
    """Caps for the GPUs of one node. A GPU that is not named is free to its found limit while the lease holds."""

    node_name: str
    lease_id: int  # grows with every issue
    valid_s: float  # from the moment of receipt
    cap_watts: Mapping[str, float] = field(default_factory=dict)  # by UUID
    clock_mhz: Mapping[str, int] = field(default_factory=dict)
