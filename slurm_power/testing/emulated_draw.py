"""A process's draw on one emulated GPU: ended for good once, and how fast the board lets the process work."""

from __future__ import annotations

import atexit
import logging
import os

from slurm_power.errors import SlurmPowerError
from slurm_power.testing.nvml_emulator.emulator import EmulatedNode

log = logging.getLogger(__name__)

MIN_SPEED = 0.05


class EmulatedDraw:
    """For classes that know what uses the GPU, and how much."""

    def __init__(self, node: EmulatedNode, uuid: str) -> None:
        self._node, self._uuid = node, uuid
        self._over = False
        atexit.register(self.close)

    def close(self) -> None:
        """Ends the draw for good. Again: nothing. A process that ends without it is noticed by the emulator."""
        if self._over:
            return
        self._over = True
        atexit.unregister(self.close)
        try:
            self._rest()
        except SlurmPowerError as error:
            log.info("no load to close: %s", error)

    def _draw(self, utilisation_fraction: float) -> None:
        self._node.open_load(self._uuid, pid=os.getpid(), utilisation_fraction=utilisation_fraction)

    def _rest(self) -> None:
        self._node.close_load(self._uuid, pid=os.getpid())

    def _speed(self, utilisation_fraction: float, elapsed_s: float) -> float:
        """Of the draw since it was opened, 1 being the board's own pace."""
        if elapsed_s <= 0:
            return 1.0
        done_s = self._node.work_done(self._uuid, pid=os.getpid()) / utilisation_fraction
        return min(1.0, max(MIN_SPEED, done_s / elapsed_s))
