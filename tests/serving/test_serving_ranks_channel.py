"""The line between rank 0 and the others: commands arrive in order, answers come back, an end is noticed at once."""

from __future__ import annotations

import os
import queue
import socket
import threading
from collections.abc import Iterator

import pytest

torch = pytest.importorskip("torch")

from job_wrappers.serving.errors import RankLost  # noqa: E402
from job_wrappers.serving.ranks.channel import Channels, MemberChannel  # noqa: E402
from job_wrappers.serving.ranks.commands import Answer, Load, SetClock, Wake  # noqa: E402

pytestmark = pytest.mark.torch

SIZE = 3


class Lines:
    """Rank 0 and two others in one process."""

    def __init__(self) -> None:
        store = torch.distributed.HashStore()
        self.lost: queue.Queue[str] = queue.Queue()
        members: dict[int, MemberChannel] = {}

        def join(rank: int) -> None:
            store.wait(["slurm-power-serve/channel"])
            members[rank] = MemberChannel(rank, store)

        threads = [threading.Thread(target=join, args=(rank,)) for rank in range(1, SIZE)]
        for thread in threads:
            thread.start()
        self.leader = Channels(SIZE, store, on_lost=self.lost.put)
        for thread in threads:
            thread.join()
        self.members = members

    def end(self, rank: int) -> None:
        """As the kernel does when a process is gone."""
        self.members[rank]._line.close()


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    for name, value in (("WORLD_SIZE", str(SIZE)), ("LOCAL_WORLD_SIZE", str(SIZE)), ("MASTER_ADDR", "127.0.0.1")):
        monkeypatch.setenv(name, value)
    found = Lines()
    yield found
    found.leader.close()
    for rank in found.members:
        found.end(rank)


def test_every_rank_hears_every_command_in_order(lines: Lines) -> None:
    for command in (Load("large"), SetClock(900), Wake("small")):
        lines.leader.tell(command)
    for member in lines.members.values():
        assert [member.receive()[1] for _ in range(3)] == [Load("large"), SetClock(900), Wake("small")]


def test_answers_come_in_rank_order_though_they_are_given_in_another(lines: Lines) -> None:
    number = lines.leader.tell(Load("large"))
    lines.members[2].answer(Answer(number, "from 2"))
    lines.members[1].answer(Answer(number, "from 1"))
    assert [answer.value for answer in lines.leader.answers(number)] == ["from 1", "from 2"]


def test_an_answer_may_overtake_one_to_an_earlier_command(lines: Lines) -> None:
    first, second = lines.leader.tell(Load("large")), lines.leader.tell(SetClock(None))
    for number in (second, first):
        for rank, member in lines.members.items():
            member.answer(Answer(number, (rank, number)))
    assert [answer.value for answer in lines.leader.answers(first)] == [(1, first), (2, first)]


def test_a_rank_that_ends_is_noticed_while_nothing_is_computed(lines: Lines) -> None:
    lines.end(2)
    assert lines.lost.get(timeout=10) == "rank 2 ended without a word"


def test_whoever_waits_for_an_answer_is_told_which_rank_is_gone(lines: Lines) -> None:
    number = lines.leader.tell(Load("large"))
    lines.end(1)
    with pytest.raises(RankLost, match="rank 1 ended"):
        lines.leader.answers(number)


def test_a_rank_says_why_it_ends(lines: Lines) -> None:
    lines.members[1].answer(Answer(0, failed="out of memory"))
    assert lines.lost.get(timeout=10) == "rank 1: out of memory"


def test_after_closing_the_others_may_go(lines: Lines) -> None:
    lines.leader.close()
    lines.end(1)
    assert lines.leader.why(0.2) is None


def test_a_member_notices_the_end_of_rank_0(lines: Lines) -> None:
    gone = threading.Event()
    lines.members[1].watch(gone.set)
    assert not gone.is_set()
    lines.leader.close()
    for line in lines.leader._ranks.values():
        socket.socket(fileno=os.dup(line.fileno())).shutdown(socket.SHUT_RDWR)
    assert gone.wait(10)
    with pytest.raises(RankLost, match="rank 0 is gone"):
        lines.members[1].receive()
