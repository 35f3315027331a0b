"""The roll call over real sockets: all come, somebody is missing, somebody dies, somebody else has the port."""

from __future__ import annotations

import json
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from job_wrappers.training.place import RankPlace
from job_wrappers.training.roll_call import RollCall
from job_wrappers.training.roll_member import RollMember, addresses
from slurm_power.testing.processes import wait_for
from training.errors import Unavailable

WAIT_S = 20.0


def place(rank: int, world_size: int, *, key: str, node: str = "n1") -> RankPlace:
    return RankPlace(rank=rank, world_size=world_size, local_rank=rank, node_name=node, nodes=("n1", "n2"), key=key)


class Site:
    """Rank 0 with whatever it hears, and members that join in threads of their own."""

    def __init__(self, world_size: int, *, key: str) -> None:
        self.world_size, self.key = world_size, key
        self.heard: queue.Queue[tuple[str, Any]] = queue.Queue()
        self.call = RollCall(
            place(0, world_size, key=key),
            on_lost=lambda text: self.heard.put(("lost", text)),
            on_failed=lambda name, text: self.heard.put(("failed", f"{name}: {text}")),
            on_joules=lambda rank, joules: self.heard.put((f"joules of {rank}", joules)),
        )
        self.members: dict[int, RollMember] = {}
        self.told: queue.Queue[tuple[int, str]] = queue.Queue()
        self.outcomes: queue.Queue[tuple[int, Any]] = queue.Queue()

    def come(self, rank: int, *, node: str = "n1", timeout_s: float = WAIT_S) -> None:
        member = RollMember(
            place(rank, self.world_size, key=self.key, node=node), on_lost=lambda text: self.told.put((rank, text))
        )
        self.members[rank] = member

        def join() -> None:
            try:
                self.outcomes.put((rank, member.join(timeout_s=timeout_s)))
            except Unavailable as error:
                self.outcomes.put((rank, error))

        threading.Thread(target=join, daemon=True).start()

    def hang_up(self, rank: int) -> None:
        """As the kernel does when a process dies."""
        lines = self.members[rank]._lines
        assert lines is not None
        lines.connection.shutdown(socket.SHUT_RDWR)
        lines.close()

    def all_come(self) -> None:
        for rank in range(1, self.world_size):
            self.come(rank, node="n1" if rank == 1 else "n2")
        self.call.wait_for_all(timeout_s=WAIT_S)
        self.call.welcome(4711)
        for _ in range(1, self.world_size):
            _, welcome = self.outcomes.get(timeout=WAIT_S)
            assert (welcome.port, welcome.address, welcome.seen_as) == (4711, "127.0.0.1", "127.0.0.1")


@pytest.fixture
def site(request: pytest.FixtureRequest) -> Iterator[Callable[[int], Site]]:
    with ExitStack() as stack:

        def make(world_size: int) -> Site:
            made = Site(world_size, key=request.node.name)
            stack.callback(made.call.close)
            return made

        yield make


def test_all_ranks_come_and_learn_the_stores_port(site: Callable[[int], Site]) -> None:
    site(4).all_come()


def test_missing_ranks_and_silent_nodes_are_named_to_everybody(site: Callable[[int], Site]) -> None:
    made = site(4)
    made.come(1)
    with pytest.raises(Unavailable, match=r"^ranks 2, 3 \(nobody from n2\) did not come within 1 s$"):
        made.call.wait_for_all(timeout_s=1.0)
    rank, error = made.outcomes.get(timeout=WAIT_S)
    assert (rank, str(error)) == (1, "ranks 2, 3 (nobody from n2) did not come within 1 s")


def test_a_late_rank_is_waited_for(site: Callable[[int], Site]) -> None:
    made = site(2)
    threading.Timer(0.5, made.come, args=(1,)).start()
    made.call.wait_for_all(timeout_s=WAIT_S)


def test_a_rank_without_rank_0_gives_up_and_says_where_it_looked() -> None:
    member = RollMember(place(1, 2, key="nobody-answers-this"), on_lost=lambda text: None)
    with pytest.raises(Unavailable, match=r"^rank 0 on n1 did not answer within 1 s$"):
        member.join(timeout_s=1.0)


def test_a_rank_that_dies_is_named_to_rank_0_and_to_the_others(site: Callable[[int], Site]) -> None:
    made = site(3)
    made.all_come()
    made.hang_up(2)
    kind, text = made.heard.get(timeout=WAIT_S)
    assert kind == "lost"
    assert text.startswith("rank 2 (n2, pid ")
    assert text.endswith(" is gone")
    told = {made.told.get(timeout=WAIT_S), made.told.get(timeout=WAIT_S)}
    assert told == {(1, text), (2, "rank 0 (n1) is gone")}  # the dead one's thread lives on in this test


def test_the_end_of_rank_0_is_noticed(site: Callable[[int], Site]) -> None:
    made = site(2)
    made.all_come()
    made.call.close()
    assert made.told.get(timeout=WAIT_S) == (1, "rank 0 (n1) is gone")


def test_a_rank_that_leaves_in_order_is_not_lost_and_rank_0_waits_for_its_end(site: Callable[[int], Site]) -> None:
    made = site(2)
    made.all_come()
    made.members[1].send_joules({"GPU-a": 5.0})
    made.members[1].leave()
    assert made.heard.get(timeout=WAIT_S) == ("joules of 1", {"GPU-a": 5.0})
    assert not made.call.wait_until_gone(timeout_s=0.3)
    made.hang_up(1)
    assert made.call.wait_until_gone(timeout_s=WAIT_S)
    assert made.heard.empty()


def test_a_rank_that_fails_says_why(site: Callable[[int], Site]) -> None:
    made = site(2)
    made.all_come()
    made.members[1].leave(failed="loss = nan: not finite")
    kind, text = made.heard.get(timeout=WAIT_S)
    assert (kind, text.partition(": ")[2]) == ("failed", "loss = nan: not finite")


def test_a_port_that_another_program_holds_is_passed_over() -> None:
    first = place(0, 2, key="clash").ports[0]
    with socket.create_server(("", first)) as silent:
        made = Site(2, key="clash")
        try:
            assert made.call.port != first
            threading.Thread(target=silent_accept, args=(silent,), daemon=True).start()
            made.all_come()
        finally:
            made.call.close()


def silent_accept(listener: socket.socket) -> None:
    """Takes a connection and hangs up, as a program of another job would."""
    connection, _ = listener.accept()
    connection.recv(1000)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    connection.close()


@pytest.mark.parametrize(
    "line",
    [
        b'{"hello": "another-start", "rank": 1}\n',
        b'{"hello": "strangers", "rank": 0}\n',
        b'{"hello": "strangers", "rank": 9}\n',
        b"GET / HTTP/1.1\r\n\r\n",
        b"[1]\n",
        b"x" * 200_000,
    ],
)
def test_strangers_are_hung_up_on(line: bytes) -> None:
    made = Site(2, key="strangers")
    try:
        with socket.create_connection(("127.0.0.1", made.call.port), timeout=WAIT_S) as stranger:
            stranger.sendall(line)
            try:
                answer = stranger.recv(100)
            except ConnectionResetError:
                answer = b""
            assert answer == b""
        made.all_come()
    finally:
        made.call.close()


def test_a_second_process_with_the_same_rank_does_not_take_its_place(site: Callable[[int], Site]) -> None:
    made = site(3)
    made.come(1)
    assert wait_for(lambda: made.members[1].joined, timeout_s=WAIT_S)
    with socket.create_connection(("127.0.0.1", made.call.port), timeout=WAIT_S) as twin:
        twin.sendall(json.dumps({"hello": made.key, "rank": 1, "node": "n2", "pid": 1}).encode() + b"\n")
        assert twin.recv(100) == b""
    made.come(2)
    made.call.wait_for_all(timeout_s=WAIT_S)


@pytest.mark.parametrize(
    ("names", "slurms", "expected"),
    [
        pytest.param(("localhost", "127.0.0.1"), None, ["localhost", "127.0.0.1"], id="names-that-resolve"),
        pytest.param(("n1.invalid", "127.0.0.1"), "127.0.0.2", ["127.0.0.2", "127.0.0.1"], id="slurm-knows"),
        pytest.param(("n1.invalid",), None, ["n1.invalid"], id="nobody-knows"),
    ],
)
def test_an_address_that_does_not_resolve_is_asked_of_slurm(
    names: tuple[str, ...], slurms: str | None, expected: list[str]
) -> None:
    there = replace(place(1, 2, key="k"), master_addresses=names)
    asked: list[str] = []

    def ask(node: str) -> str | None:
        asked.append(node)
        return slurms

    assert addresses(there, ask) == expected
    assert asked == ([] if names[0] == "localhost" else ["n1"])
