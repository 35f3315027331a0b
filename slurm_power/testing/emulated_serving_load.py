"""Lets a server on a CPU draw power on an emulated GPU, and be slowed by its cap and clock, as a GPU would be.

The model, all choices of ours: reading the weights for one token keeps a GPU half busy, and every further token of an
iteration makes fuller use of what was read, so its use is `LEAST + (FULL - LEAST) * n / (n + HALF)`. Between iterations
it idles. The board's own physics (nvml_emulator/emulator.h) turn use into watts, and caps or clock locks into a lower
speed: an iteration takes its own CPU time / speed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from slurm_power.errors import SlurmPowerError
from slurm_power.testing.emulated_draw import EmulatedDraw
from slurm_power.testing.nvml_emulator.emulator import EmulatedNode

log = logging.getLogger(__name__)

Result = TypeVar("Result")

LEAST, FULL, HALF = 0.45, 0.95, 32.0


def utilisation_fraction(tokens: int) -> float:
    return LEAST + (FULL - LEAST) * tokens / (tokens + HALF)


class EmulatedServingLoad(EmulatedDraw):
    """A GPU that is lost costs one warning; the server goes on."""

    def __init__(self, node: EmulatedNode, uuid: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
        super().__init__(node, uuid)
        self._sleep = sleep

    @contextmanager
    def iteration(self, tokens: int) -> Iterator[None]:
        """Around the computing of `tokens`, on the thread that computes."""
        use = utilisation_fraction(tokens)
        began_s, began_cpu_s = time.monotonic(), time.thread_time()
        self._try(lambda: self._draw(use))
        try:
            yield
        finally:
            own_s = time.thread_time() - began_cpu_s
            speed = self._try(lambda: self._speed(use, time.monotonic() - began_s)) or 1.0
            self._sleep(own_s * (1.0 / speed - 1.0))
            self._try(self._rest)

    def _try(self, step: Callable[[], Result]) -> Result | None:
        """None once the GPU is lost."""
        if self._over:
            return None
        try:
            return step()
        except SlurmPowerError as error:
            log.warning("the server draws no emulated power from here on: %s", error)
            self._over = True
            return None
