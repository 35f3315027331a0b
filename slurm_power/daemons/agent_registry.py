"""What the node agents last reported, and the leases they get back. Trust is munge's, never an address's."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping

from slurm_power.errors import NotPermitted, SlurmPowerError
from slurm_power.gpu.wire import AgentReport, NodeLease
from slurm_power.gpu.wire_json import lease_to_json, report_from_json
from slurm_power.monitoring.readings import GpuReading, NodeReading
from slurm_power.ports.clock import Clock
from slurm_power.ports.credentials import Credentials


class AgentRegistry:
    """Shared by the web server's threads and the tick: every method is safe to call from any of them."""

    def __init__(
        self, *, clock: Clock, credentials: Credentials, allowed_uids: Collection[int], lease_s: float
    ) -> None:
        self._clock = clock
        self._credentials = credentials
        self._allowed_uids = frozenset(allowed_uids)
        self._lease_s = lease_s
        self._lock = threading.Lock()
        self._readings: dict[str, NodeReading] = {}
        self._limits: dict[str, tuple[float, float]] = {}
        self._job_caps: Mapping[int, float] = {}
        self._granted_until_s: float | None = None
        self._lease_id = 0

    def exchange(self, sealed: bytes) -> bytes:
        """One report in, this node's lease out. Raise NotPermitted for a stranger, ConfigError for nonsense."""
        opened = self._credentials.open(sealed)
        if opened.uid not in self._allowed_uids:
            raise NotPermitted(f"uid {opened.uid} may not report as a node agent")
        lease = self.accept(report_from_json(opened.payload))
        return self._credentials.seal(b"{}" if lease is None else lease_to_json(lease))

    def accept(self, report: AgentReport) -> NodeLease | None:
        with self._lock:
            self._readings[report.node_name] = _reading(report, now_s=self._clock.now_s())
            for gpu in report.gpus:
                self._limits[gpu.uuid] = (gpu.min_cap_watts, gpu.max_cap_watts)
            return self._lease(report)

    def grant(self, job_caps: Mapping[int, float]) -> None:
        """Let the leases carry these caps (watts per GPU, by job) until `lease_s` after this call."""
        with self._lock:
            self._job_caps = dict(job_caps)
            self._granted_until_s = self._clock.now_s() + self._lease_s

    def trouble(self) -> str | None:
        """Why no report can be opened and no lease sealed now; None when all is well."""
        try:
            self._credentials.seal(b"")
        except SlurmPowerError as trouble:
            return str(trouble)
        return None

    def readings(self) -> dict[str, NodeReading]:
        with self._lock:
            return dict(self._readings)

    def _lease(self, report: AgentReport) -> NodeLease | None:
        """No lease once the tick has gone silent: a hanging controller must not keep old caps alive."""
        now_s = self._clock.now_s()
        if self._granted_until_s is None or now_s > self._granted_until_s:
            return None
        self._lease_id += 1
        return NodeLease(
            node_name=report.node_name,
            lease_id=self._lease_id,
            valid_s=self._lease_s,
            cap_watts={
                gpu.uuid: max(gpu.min_cap_watts, self._job_caps[gpu.job_id])
                for gpu in report.gpus
                if gpu.job_id is not None and gpu.job_id in self._job_caps
            },
        )


def _reading(report: AgentReport, *, now_s: float) -> NodeReading:
    return NodeReading(
        node_name=report.node_name,
        base_watts=report.base_watts,
        gpus=tuple(
            GpuReading(
                uuid=gpu.uuid,
                draw_watts=gpu.draw_watts,
                energy_joules=gpu.energy_joules,
                sm_clock_mhz=gpu.sm_clock_mhz,
                temperature_celsius=gpu.temperature_celsius,
                utilisation_fraction=gpu.utilisation_fraction,
                cap_watts=gpu.cap_watts,
                cap_source=gpu.cap_source,
                job_id=gpu.job_id,
                error=gpu.error,
            )
            for gpu in report.gpus
        ),
        taken_at_s=now_s - report.age_s,
    )
