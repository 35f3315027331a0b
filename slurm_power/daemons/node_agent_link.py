"""The exchange with the controller in a thread of its own: a silent controller must not hold up sampling."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue

from slurm_power.errors import SlurmPowerError
from slurm_power.gpu.wire import AgentReport, NodeLease
from slurm_power.ports.agent_link import AgentLink
from slurm_power.ports.clock import Clock

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HeardLease:
    lease: NodeLease
    received_at_s: float


class LinkWorker:
    """Sends the newest report offered; what waited behind it is dropped."""

    def __init__(self, link: AgentLink, *, clock: Clock, on_lease: Callable[[], None]) -> None:
        """`on_lease` is called from the worker's thread when a lease can be taken."""
        self._link = link
        self._clock = clock
        self._on_lease = on_lease
        self._leases: SimpleQueue[HeardLease] = SimpleQueue()
        self._wanted = threading.Condition()
        self._offered: tuple[AgentReport, float] | None = None
        self._stopping = False
        self._failure: str | None = None
        self._thread = threading.Thread(target=self._run, name="controller-link", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def offer(self, report: AgentReport) -> None:
        with self._wanted:
            self._offered = (report, self._clock.now_s())
            self._wanted.notify()

    def leases(self) -> list[HeardLease]:
        """What came since the last call, oldest first."""
        heard = []
        while True:
            try:
                heard.append(self._leases.get_nowait())
            except Empty:
                return heard

    def stop(self, *, timeout_s: float) -> None:
        with self._wanted:
            self._stopping = True
            self._wanted.notify()
        self._thread.join(timeout_s)

    def exchange_once(self, report: AgentReport, *, offered_at_s: float) -> None:
        """One exchange; a failure is said when it begins and when it ends."""
        waited_s = self._clock.now_s() - offered_at_s
        try:
            lease = self._link.exchange(replace(report, age_s=report.age_s + waited_s))
        except SlurmPowerError as error:
            self._note(str(error))
            return
        self._note(None)
        if lease is not None:
            self._leases.put(HeardLease(lease, self._clock.now_s()))
            self._on_lease()

    def _run(self) -> None:
        while True:
            with self._wanted:
                self._wanted.wait_for(lambda: self._stopping or self._offered is not None)
                if self._stopping or self._offered is None:
                    return
                report, offered_at_s = self._offered
                self._offered = None
            try:
                self.exchange_once(report, offered_at_s=offered_at_s)
            except Exception:  # the outermost loop of this thread: the next report is another try
                log.exception("the exchange with the controller broke")

    def _note(self, failure: str | None) -> None:
        if (failure is None) != (self._failure is None):
            log.warning("controller: %s", failure or "answers again")
        self._failure = failure
