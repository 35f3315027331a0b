"""What the server asks of an engine. `EngineHost` is one; tests use a fake."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

from job_wrappers.serving.engine.views import EngineStatus, ServedModel
from job_wrappers.serving.requests.output import ChoiceOutput
from job_wrappers.serving.requests.request import Request
from job_wrappers.serving.scheduling.scheduler import Limits


class EngineClient(Protocol):
    """Every method may be called from any thread. Those that steer wait for the iteration that runs now."""

    def active(self) -> ServedModel:
        """Raise NotServing when no model is awake."""
        ...

    def submit(self, request: Request, listener: Callable[[ChoiceOutput], None]) -> Future[None]:
        """Does not wait; the future holds a RequestRefused kind if the request was not taken. NotServing with
        retry_after_s 0 means: another model is active now. The listener is called on the engine's thread."""
        ...

    def cancel(self, request_id: str) -> None:
        """Of a request that has ended, or was never taken: nothing happens."""
        ...

    def status(self) -> EngineStatus: ...

    def set_limits(self, *, max_num_seqs: int | None = None, max_batched_tokens: int | None = None) -> Limits: ...

    def set_clock(self, mhz: int | None) -> None: ...

    def switch_model(self, name: str) -> None:
        """Returns when the other model takes requests: that may take minutes."""
        ...

    def sleep(self) -> None: ...

    def wake(self) -> None: ...

    def drain(self) -> None:
        """Refuse new requests from now on."""
        ...

    def unfinished(self) -> int: ...
