"""The engine's thread: iterations while there is work, asleep otherwise; calls from other threads run in between."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from job_wrappers.serving.errors import ServingError

Result = TypeVar("Result")


class EngineLoop:
    """`iterate` does one iteration and says whether there may be more to do. `on_crash` gets what it raised, once,
    on this thread; nothing runs afterwards."""

    def __init__(self, iterate: Callable[[], bool], *, on_crash: Callable[[BaseException], None]) -> None:
        self._iterate, self._on_crash = iterate, on_crash
        self._changed = threading.Condition()
        self._calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._woken = False
        self._stopping = False
        self._over = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """There is work. From any thread; cheap."""
        with self._changed:
            self._woken = True
            self._changed.notify()

    def post(self, call: Callable[[], Result]) -> Future[Result]:
        """Run `call` on the engine's thread before the next iteration."""
        future: Future[Result] = Future()
        with self._changed:
            if self._over:
                future.set_exception(ServingError("the engine has ended"))
            else:
                self._calls.append((future, call))
            self._changed.notify()
        return future

    def call(self, call: Callable[[], Result]) -> Result:
        """The same, and wait for what it returns or raises. Not from the engine's thread."""
        return self.post(call).result()

    def stop(self, *, timeout_s: float = 10.0) -> None:
        """After the iteration that runs now. What is unfinished stays so."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if threading.current_thread() is not self._thread and self._thread.ident is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            while self._wait():
                for future, call in self._taken():
                    _answer(future, call)
                if self._iterate():
                    self._woken = True
        except BaseException as error:  # noqa: BLE001  the outermost loop: whatever it is, requests must not hang
            self._end()
            self._on_crash(error)
        self._end()

    def _wait(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._woken or self._calls or self._stopping)
            self._woken = False
            return not self._stopping

    def _taken(self) -> list[tuple[Future[Any], Callable[[], Any]]]:
        with self._changed:
            calls, self._calls = list(self._calls), deque()
            return calls

    def _end(self) -> None:
        with self._changed:
            self._over = True
        for future, _ in self._taken():
            future.set_exception(ServingError("the engine has ended"))


def _answer(future: Future[Any], call: Callable[[], Any]) -> None:
    """A steering call that fails is its caller's trouble, not the engine's. One that nobody waits for any more is not
    made."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(call())
    except Exception as error:  # noqa: BLE001  raised again where the result is awaited
        future.set_exception(error)
