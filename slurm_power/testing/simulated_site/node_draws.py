"""What the emulated nodes draw. A node whose state file does not exist yet draws nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from slurm_power.errors import SlurmPowerError

log = logging.getLogger(__name__)


class DrawingNode(Protocol):
    def draw_watts(self) -> float: ...

    def close(self) -> None: ...


class NodeDraws:
    def __init__(self, state_files: Sequence[Path], open_node: Callable[[Path], DrawingNode] | None = None) -> None:
        self._files = tuple(state_files)
        self._open_node = open_node or open_emulated_node
        self._nodes: dict[Path, tuple[int, DrawingNode]] = {}
        self._complained: set[Path] = set()

    def total_watts(self) -> float:
        return sum(self._draw_watts(path) for path in self._files)

    def close(self) -> None:
        for _, node in self._nodes.values():
            node.close()
        self._nodes.clear()

    def _draw_watts(self, path: Path) -> float:
        try:
            watts = self._node(path).draw_watts()
        except FileNotFoundError:
            self._forget(path)
            return 0.0
        except (OSError, ValueError, SlurmPowerError) as error:
            self._forget(path)
            if path not in self._complained:
                self._complained.add(path)
                log.error("%s: counted as 0 W: %s", path, error)
            return 0.0
        self._complained.discard(path)
        return watts

    def _node(self, path: Path) -> DrawingNode:
        """Opened once; again when the file was replaced (the node was created anew)."""
        inode = path.stat().st_ino
        known = self._nodes.get(path)
        if known is None or known[0] != inode:
            self._forget(path)
            self._nodes[path] = known = (inode, self._open_node(path))
        return known[1]

    def _forget(self, path: Path) -> None:
        known = self._nodes.pop(path, None)
        if known is not None:
            with suppress(OSError, ValueError):
                known[1].close()


def open_emulated_node(path: Path) -> DrawingNode:
    # Only a site with emulated nodes needs the emulator and its compiled library.
    from slurm_power.testing.nvml_emulator.emulator import EmulatedNode

    node: DrawingNode = EmulatedNode.open(path)
    return node
