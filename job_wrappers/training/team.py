"""All ranks of one start: they meet, notice when one is gone, and leave so that Slurm sees the right exit code.

`srun --kill-on-bad-exit=1` ends all tasks at the first exit code that is not 0, and then reports 143 for those it had
to end. So a requeue is said by rank 0 alone, after every other process has ended with 0.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

import psutil

from job_wrappers.training.place import RankPlace
from job_wrappers.training.roll_call import RollCall, is_loopback
from job_wrappers.training.roll_member import RollMember, Welcome
from job_wrappers.training.say import say
from training.errors import Unavailable

LOST_GRACE_S = 10.0
"""How long a collective may take to notice that a peer is gone; then this process ends itself."""

LEAVE_S = 20.0
"""How long rank 0 waits for the others' processes to end."""

OnJoules = Callable[[int, Any], None]


class Team:
    """One rank's view of all. `end` is the last call in the process."""

    def __init__(self, place: RankPlace, *, on_joules: OnJoules) -> None:
        self.place = place
        self.lost: str | None = None
        """The line that names a rank that ended without a word; None while all are there."""

        self._said: set[str] = set()
        self._noticed = threading.Event()
        self._on_joules = on_joules
        self._call: RollCall | None = None
        self._member: RollMember | None = None
        self._store: Any = None

    @property
    def leads(self) -> bool:
        return self.place.rank == 0

    def meet(self, *, timeout_s: float) -> dict[str, str]:
        """Wait for all ranks. The variables that torch.distributed wants. Raise Unavailable, naming who is missing."""
        found = self._lead(timeout_s) if self.leads else self._follow(timeout_s)
        return {
            "RANK": str(self.place.rank),
            "LOCAL_RANK": str(self.place.local_rank),
            "WORLD_SIZE": str(self.place.world_size),
            "LOCAL_WORLD_SIZE": str(self.place.local_size),
            # The store stands already, on a port that was free: env:// must join it, not open one.
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "TORCHELASTIC_RESTART_COUNT": "0",
            **found,
        }

    def send_joules(self, joules: object) -> None:
        if self._member is not None:
            self._member.send_joules(joules)
        else:
            self._on_joules(0, joules)

    def say_failure(self, text: str) -> None:
        """Once for all ranks: rank 0 prints, and prints the same words only once."""
        if self._member is not None and self._member.joined:
            self._member.leave(failed=text)
        elif self._member is not None:
            if self.place.local_rank == 0:  # nobody to say it for us; once a node
                say(f"rank {self.place.rank} on {self.place.node_name}: {text}")
        elif text not in self._said:
            self._said.add(text)
            say(text)
        if self._call is not None:
            self._call.tell_lost(text)

    def part(self) -> None:
        """Before `end`, when all went well: rank 0 waits for the others' last words and the ends of their processes."""
        if self._member is not None:
            self._member.leave()
        elif self._call is not None and not self._call.wait_until_gone(timeout_s=LEAVE_S):
            say(f"warning: not every rank ended within {LEAVE_S:.0f} s")

    def noticed_loss(self, within_s: float) -> str | None:
        """A collective may fail a moment before the roll call tells why."""
        self._noticed.wait(within_s)
        return self.lost

    def end_later(self, exit_code: int) -> None:
        """At the latest after LOST_GRACE_S, whatever this process then waits for."""
        _end_later(exit_code, LOST_GRACE_S)

    def end(self, exit_code: int) -> NoReturn:
        """Ends the process without Python's own clean-up, which may wait for peers that are gone; it also keeps the
        connection to rank 0 open until the exit code stands."""
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)

    def _lead(self, timeout_s: float) -> dict[str, str]:
        address = "127.0.0.1"
        if self.place.world_size > 1:
            self._call = RollCall(
                self.place, on_lost=self._lose, on_failed=self._failed_elsewhere, on_joules=self._on_joules
            )
        self._store = _open_store()
        if self._call is not None:
            self._call.wait_for_all(timeout_s=timeout_s)
            address = self._call.address()
            self._call.welcome(self._store.port)
        return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self._store.port), **_gloo_interface(address)}

    def _follow(self, timeout_s: float) -> dict[str, str]:
        self._member = RollMember(self.place, on_lost=self._lose)
        welcome = self._member.join(timeout_s=timeout_s)
        interface = _gloo_interface(_own_address(welcome, self._member.local_address))
        return {"MASTER_ADDR": welcome.address, "MASTER_PORT": str(welcome.port), **interface}

    def _lose(self, text: str) -> None:
        """From the roll call's thread: the training thread may hang in a collective for ever."""
        if self.lost is not None:
            return
        self.lost = text
        self._noticed.set()
        if self.leads or (self.place.rank == 1 and text.startswith("rank 0 ")):
            self._said.add(text)
            say(text)
        _end_later(Unavailable.exit_code, LOST_GRACE_S)

    def _failed_elsewhere(self, name: str, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            say(f"{name}: {text}")
        self.lost = self.lost or text
        self._noticed.set()
        if self._call is not None:
            self._call.tell_lost(text)
        _end_later(Unavailable.exit_code, LOST_GRACE_S)


def _end_later(exit_code: int, grace_s: float) -> None:
    def end() -> None:
        time.sleep(grace_s)
        os._exit(exit_code)

    threading.Thread(target=end, name="lost", daemon=True).start()


def _open_store() -> Any:
    """On any free port, so nothing can have taken it meanwhile."""
    from torch.distributed import TCPStore

    return TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)


def _own_address(welcome: Welcome, ours: str | None) -> str:
    """A rank on rank 0's node may have come over the loopback; then other nodes see it as they see rank 0."""
    return welcome.seen_as if ours is None or is_loopback(ours) else ours


def _gloo_interface(address: str) -> dict[str, str]:
    """gloo takes the interface that the host's own name resolves to, which is the loopback on many machines."""
    if "GLOO_SOCKET_IFNAME" in os.environ:
        return {}
    for name, found in psutil.net_if_addrs().items():
        if any(each.address.partition("%")[0] == address for each in found):
            return {"GLOO_SOCKET_IFNAME": name}
    return {}
