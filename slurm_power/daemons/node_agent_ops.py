"""Answers one local request. Who may ask what is decided here, by the uid the kernel vouches for."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import assert_never

from slurm_power.daemons.node_agent import NodeAgent
from slurm_power.daemons.node_agent_rates import UserRates
from slurm_power.daemons.node_agent_views import gpu_status, job_point
from slurm_power.errors import DeviceRefused, NotPermitted, SlurmPowerError
from slurm_power.gpu.allocation import Allocation, allocated_uuids
from slurm_power.gpu.job_table import owned
from slurm_power.gpu.local_request import (
    JobBegin,
    JobEnd,
    MyGpus,
    Points,
    Request,
    SetCap,
    SetClock,
    Status,
    parse_request,
)
from slurm_power.gpu.options import parse_options, shown
from slurm_power.ports.clock import Clock

log = logging.getLogger(__name__)

Answer = Mapping[str, object]

_MAX_AHEAD_S = 60.0
"""A job's points may not lie in the future by more than clocks may differ."""


class LocalOps:
    def __init__(self, agent: NodeAgent, *, clock: Clock) -> None:
        self._agent = agent
        self._clock = clock
        self._points = UserRates(agent.config.points_per_s)

    def answer(self, line: bytes, uid: int) -> Answer:
        """Never raises for what a client sent."""
        try:
            return {"ok": True, **self._do(parse_request(line), uid)}
        except SlurmPowerError as error:
            if uid == 0:
                log.warning("refused: %s", error)
            return {"ok": False, "error": str(error)}

    def _do(self, request: Request, uid: int) -> Answer:
        match request:
            case JobBegin():
                return self._begin(request, uid)
            case JobEnd(job_id, node):
                self._only_slurm(uid, node)
                self._agent.end(job_id)
                return {}
            case Status():
                return self._status()
            case MyGpus(job_id):
                job = owned(self._agent.jobs, job_id, uid=uid)
                return {"uuids": list(job.uuids), "node": self._agent.node_name}
            case SetCap(job_id, gpu, watts):
                self._agent.lower(job_id, gpu, watts, uid=uid)
                return {}
            case SetClock(job_id, gpu, mhz):
                self._agent.slow(job_id, gpu, mhz, uid=uid)
                return {}
            case Points():
                return self._keep(request, uid)
            case _:
                assert_never(request)

    def _begin(self, request: JobBegin, uid: int) -> Answer:
        self._only_slurm(uid, request.node)
        minors = self._agent.config.gpu_minors
        node_gpus = self._agent.node_gpus()
        uuids = allocated_uuids(request.gpus, request.visible, node_gpus=node_gpus, gpu_minors=minors)
        options, refusals = parse_options(request.options)
        for refusal in refusals:
            log.warning("job %d: %s", request.job_id, refusal)
        self._agent.begin(Allocation(request.job_id, request.uid, uuids, options), task=request.task)
        return {"uuids": list(uuids), "refused": list(refusals)}

    def _status(self) -> Answer:
        now_s = self._clock.now_s()
        return {
            "node": self._agent.node_name,
            "base_watts": self._agent.config.node_base_watts,
            "lease_remaining_s": self._agent.lease_remaining_s(),
            "monitor_only": self._agent.monitor_only,
            "gpus": [gpu_status(view, now_s=now_s) for view in self._agent.views()],
        }

    def _keep(self, request: Points, uid: int) -> Answer:
        job = owned(self._agent.jobs, request.job_id, uid=uid)
        latest_wall_s = self._clock.wall_s() + _MAX_AHEAD_S
        if any(point.wall_s > latest_wall_s for point in request.points):
            raise DeviceRefused("points: wall_s lies in the future")
        if not self._points.take(uid, len(request.points), now_s=self._clock.now_s()):
            raise DeviceRefused(f"points: more than {self._agent.config.points_per_s:g} points per second")
        node_name = self._agent.node_name
        self._agent.keep_points(
            job_point(point, job_id=job.job_id, uid=job.uid, node_name=node_name) for point in request.points
        )
        return {"kept": len(request.points)}

    def _only_slurm(self, uid: int, node: str) -> None:
        if uid != 0:
            raise NotPermitted("only Slurm's own daemons (root) may tell of jobs")
        if node != self._agent.node_name:
            raise DeviceRefused(f"node {shown(node)}: this agent serves {self._agent.node_name}")
