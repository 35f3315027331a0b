"""Free TCP ports, agreed upon between clusters that start at the same moment."""

from __future__ import annotations

import fcntl
import random
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from slurm_power.errors import Unavailable

# Below the range from which Linux takes the ports of outgoing connections (net.ipv4.ip_local_port_range).
_FIRST_PORT = 17000
_LAST_PORT = 32000


@contextmanager
def port_lock() -> Iterator[None]:
    """Held from choosing ports until they are bound, so that no other cluster chooses the same."""
    with (Path(tempfile.gettempdir()) / "slurm-power-ports.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def free_ports(count: int) -> list[int]:
    """`count` ports in a row. Raise Unavailable when there are none."""
    for _ in range(100):
        first = random.randrange(_FIRST_PORT, _LAST_PORT - count)
        ports = list(range(first, first + count))
        if all_free(ports):
            return ports
    raise Unavailable(f"no {count} free ports in a row between {_FIRST_PORT} and {_LAST_PORT}")


def all_free(ports: Sequence[int]) -> bool:
    return all(_is_free(port) for port in ports)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the daemons do: an old connection in TIME_WAIT is no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
        return True
