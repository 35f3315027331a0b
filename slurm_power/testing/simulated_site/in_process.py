"""The site in a thread of this process, for tests that move time by hand."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from slurm_power.errors import Unavailable
from slurm_power.ports.clock import Clock
from slurm_power.testing.simulated_site import control
from slurm_power.testing.simulated_site.config import SimulatedSiteConfig
from slurm_power.testing.simulated_site.site import SimulatedSite

T = TypeVar("T")
START_TIMEOUT_S = 30.0


class InProcessSite:
    """Serves from entering to leaving the context. Time passes only as `clock` says, at each request."""

    def __init__(
        self, config: SimulatedSiteConfig, *, clock: Clock, it_watts: Callable[[], float] = lambda: 0.0
    ) -> None:
        self._site = SimulatedSite(config, clock=clock, it_watts=it_watts)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="simulated-site", daemon=True)
        self.host = config.site.host
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self.port = self._wait(self._site.start())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._wait(self._site.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(START_TIMEOUT_S)
        self._loop.close()

    def do(self, order: str, **values: Any) -> dict[str, float]:
        """What `SiteControl.do` does over its socket."""
        return self.ask(lambda site: control.act(site, {"do": order, **values}))

    def ask(self, question: Callable[[SimulatedSite], T]) -> T:
        """Run `question` where the site lives, so that it sees no half-made step."""

        async def answer() -> T:
            return question(self._site)

        return self._wait(answer())

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(START_TIMEOUT_S)
        except TimeoutError as cause:
            raise Unavailable("the site's thread does not answer") from cause
