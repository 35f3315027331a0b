"""Lets a training on a CPU draw power on emulated GPUs, and be slowed by their caps and clocks, as a GPU would be.

The model, all choices of ours: a forward or backward pass of n sequences takes as long as n + OVERHEAD sequences would
at full use, so its GPU is used at `FULL * n / (n + OVERHEAD)` and small batches leave it half empty; between passes it
idles; the optimiser counts as full use. The board's own physics (nvml_emulator/emulator.h) turn use into watts, and
caps or clock locks into a lower speed. So a pass takes its own CPU time * (n + OVERHEAD) / n / speed, and what it waits
for others in collectives: that may be their stretched time, and stretching it again would grow without bound.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from slurm_power.errors import SlurmPowerError
from slurm_power.testing.emulated_draw import EmulatedDraw
from slurm_power.testing.nvml_emulator.emulator import EmulatedNode

log = logging.getLogger(__name__)

FULL, OVERHEAD = 0.95, 1.0


def utilisation_fraction(micro_sequences: float) -> float:
    return FULL * micro_sequences / (micro_sequences + OVERHEAD)


class EmulatedTrainingLoad(EmulatedDraw):
    """A StepListener that only hears instructions. A GPU that is lost costs one warning; the training goes on.

    `sequences_per_step`: of this rank's data share; the micro-batch follows from how many backward passes they took.
    `chunks`: model parts per rank (2 under DualPipeV).
    """

    def __init__(
        self,
        node: EmulatedNode,
        uuid: str,
        *,
        sequences_per_step: float,
        micro_sequences: float,
        chunks: int = 1,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(node, uuid)
        self._sleep = sleep
        self._sequences_per_step, self._micro_sequences, self._chunks = sequences_per_step, micro_sequences, chunks
        self._backwards = 0
        self._began: tuple[float, float] | None = None  # by the monotonic clock and this thread's CPU time
        self._use, self._stretch = 0.0, 1.0
        self.slowed_s = 0.0
        """Waited in all, because the emulated board takes longer than the CPU did."""

    def on_run_begin(self, facts: object) -> None:
        return None

    def on_step(self, record: object) -> None:
        return None

    def on_event(self, event: object) -> None:
        return None

    def on_run_end(self, result: object) -> None:
        self.close()

    def on_instruction(self, name: str, phase: str) -> None:
        if self._over:
            return
        try:
            if phase == "begin":
                self._begin(name)
            else:
                self._end()
        except SlurmPowerError as error:
            log.warning("the training draws no emulated power from here on: %s", error)
            self.close()

    def _begin(self, name: str) -> None:
        # Not forward passes: evaluations have those too.
        self._backwards += name == "backward"
        if name == "optimizer" and self._backwards:
            self._micro_sequences = self._sequences_per_step * self._chunks / self._backwards
            self._backwards = 0
        self._use = FULL if name == "optimizer" else utilisation_fraction(self._micro_sequences)
        self._stretch = FULL / self._use
        self._draw(self._use)
        self._began = time.monotonic(), time.thread_time()

    def _end(self) -> None:
        if self._began is None:
            return
        (began_s, began_cpu_s), self._began = self._began, None
        elapsed_s, own_s = time.monotonic() - began_s, time.thread_time() - began_cpu_s
        held_s = own_s * (self._stretch / self._speed(self._use, elapsed_s) - 1.0)
        self._sleep(held_s)
        self.slowed_s += held_s
        self._rest()
