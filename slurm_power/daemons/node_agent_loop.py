"""The agent's main loop: a tick every sample period, local clients in between, the controller beside it."""

from __future__ import annotations

import logging
import threading

from slurm_power.daemons.metrics_listener import MetricsListener
from slurm_power.daemons.node_agent import NodeAgent
from slurm_power.daemons.node_agent_link import LinkWorker
from slurm_power.daemons.node_agent_metrics import agent_metrics
from slurm_power.daemons.node_agent_socket import LocalServer
from slurm_power.monitoring.openmetrics import render
from slurm_power.ports.clock import Clock

log = logging.getLogger(__name__)


class AgentLoop:
    def __init__(
        self,
        agent: NodeAgent,
        *,
        server: LocalServer,
        clock: Clock,
        link: LinkWorker | None = None,
        metrics: MetricsListener | None = None,
    ) -> None:
        self._agent = agent
        self._server = server
        self._clock = clock
        self._link = link
        self._metrics = metrics
        self._stopping = False
        self._pause = threading.Event()
        self._report_at_s = clock.now_s()
        agent.on_jobs_changed = self._report_now

    def stop(self) -> None:
        """May be called from a signal handler."""
        self._stopping = True
        self._pause.set()
        self._server.wake()

    def run(self) -> None:
        """Returns after `stop`, when everything borrowed is given back.
        Raise Unavailable when the journal cannot be read."""
        try:
            self._agent.start()
            if self._link is not None:
                self._link.start()
            if self._metrics is not None:
                self._metrics.start()
            self._turn()
        finally:
            self._server.close()
            if self._metrics is not None:
                self._metrics.close()
        self._agent.stop()
        if self._link is not None:
            self._link.stop(timeout_s=1.0)

    def _turn(self) -> None:
        config = self._agent.config
        tick_at_s = self._clock.now_s()
        while not self._stopping:
            try:
                if self._clock.now_s() >= tick_at_s:
                    # A late tick is not made up for: the next one is a whole period away at most.
                    tick_at_s = max(tick_at_s, self._clock.now_s() - config.sample_period_s) + config.sample_period_s
                    self._agent.tick()
                    self._publish()
                if self._link is not None and self._clock.now_s() >= self._report_at_s:
                    self._report_at_s = self._clock.now_s() + config.report_period_s
                    self._link.offer(self._agent.report())
                self._server.serve(until_s=tick_at_s)
                self._hear()
            except Exception:  # the daemon's outermost loop: one bad turn must not uncap a node
                log.exception("a turn of the agent broke")
                self._pause.wait(config.sample_period_s)

    def _publish(self) -> None:
        if self._metrics is not None:
            agent, now_s = self._agent, self._clock.now_s()
            families = agent_metrics(
                agent.views(),
                base_watts=agent.config.node_base_watts,
                lease_remaining_s=agent.lease_remaining_s(),
                tracks_lease=self._link is not None,
                now_s=now_s,
            )
            self._metrics.publish(render(families))

    def _report_now(self) -> None:
        """A new job must not run under the lease of the one before it until the next report is due."""
        self._report_at_s = self._clock.now_s()
        self._server.wake()

    def _hear(self) -> None:
        for heard in self._link.leases() if self._link is not None else []:
            self._agent.hear_lease(heard.lease, received_at_s=heard.received_at_s)
