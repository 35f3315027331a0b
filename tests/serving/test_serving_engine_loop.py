"""The engine's thread: it sleeps when there is nothing to do, runs calls in between, and ends with a word."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from job_wrappers.serving.engine.loop import EngineLoop
from job_wrappers.serving.errors import ServingError


class Work:
    """So many iterations are to be done; says when the thread has fallen asleep after the last."""

    def __init__(self, iterations: int = 0) -> None:
        self.left = iterations
        self.looks = 0
        self.idle = threading.Event()
        self.crash: BaseException | None = None
        self.ended = threading.Event()

    def iterate(self) -> bool:
        self.looks += 1
        if self.left < 0:
            raise RuntimeError("the model is broken")
        self.left = max(0, self.left - 1)
        if self.left == 0:
            self.idle.set()
        return self.left > 0

    def on_crash(self, error: BaseException) -> None:
        self.crash = error
        self.ended.set()


@contextmanager
def running(work: Work) -> Iterator[EngineLoop]:
    loop = EngineLoop(work.iterate, on_crash=work.on_crash)
    loop.start()
    try:
        yield loop
    finally:
        loop.stop()


def test_it_iterates_until_nothing_is_left_and_then_sleeps() -> None:
    work = Work(iterations=5)
    with running(work) as loop:
        loop.wake()
        assert work.idle.wait(10)
        assert loop.call(lambda: work.looks) == 5


def test_a_call_runs_on_the_engines_thread_and_returns_there() -> None:
    with running(Work()) as loop:
        assert loop.call(lambda: threading.current_thread().name) == "engine"


def test_a_call_that_fails_tells_its_caller_and_the_engine_goes_on() -> None:
    with running(Work()) as loop:
        with pytest.raises(ZeroDivisionError):
            loop.call(lambda: 1 // 0)
        assert loop.call(lambda: "well") == "well"


def test_a_crash_is_told_once_and_later_calls_are_refused() -> None:
    work = Work(iterations=-1)
    with running(work) as loop:
        loop.wake()
        assert work.ended.wait(10)
        with pytest.raises(ServingError, match="has ended"):
            loop.call(lambda: None)
    assert isinstance(work.crash, RuntimeError)


def test_a_stopped_engine_refuses_calls() -> None:
    loop = EngineLoop(lambda: False, on_crash=lambda error: None)
    loop.start()
    loop.stop()
    with pytest.raises(ServingError, match="has ended"):
        loop.call(lambda: None)
