"""What every rank but rank 0 does: as it is told, until it is told to stop or rank 0 is gone."""

from __future__ import annotations

import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor

from job_wrappers.serving.errors import RankLost
from job_wrappers.serving.ranks.channel import MemberChannel
from job_wrappers.serving.ranks.commands import Answer, Command, Profile, SetClock, Step, Stop
from job_wrappers.serving.ranks.rank import FAILURES, Rank

log = logging.getLogger(__name__)

GONE_GRACE_S = 5.0
"""A collective may hang when rank 0 is gone; after this the process ends whatever it waits for."""


def run_worker(rank: Rank, channel: MemberChannel) -> None:
    """Returns after Stop. Raises RankLost when rank 0 ends without a word."""
    stopped = threading.Event()
    channel.watch(lambda: _end_later(stopped))
    # Weights are read and moved beside the steps of the model that still serves; one thing at a time, in order.
    with ThreadPoolExecutor(1, thread_name_prefix="weights") as beside:
        while True:
            number, command = channel.receive()
            match command:
                case Step(model, step):
                    _run_step(rank, channel, model, step)
                case Stop():
                    stopped.set()
                    return
                case Profile() | SetClock():
                    _answer(rank, channel, number, command)
                case _:
                    beside.submit(_answer, rank, channel, number, command)


def _run_step(rank: Rank, channel: MemberChannel, model: str, step: object) -> None:
    try:
        rank.run(model, step)  # type: ignore[arg-type]
    except FAILURES as error:
        channel.answer(Answer(0, failed=_line(error)))
        raise RankLost(_line(error)) from error


def _answer(rank: Rank, channel: MemberChannel, number: int, command: Command) -> None:
    try:
        channel.answer(Answer(number, rank.do(command)))
    except FAILURES as error:
        log.debug("%s", command, exc_info=True)
        channel.answer(Answer(number, failed=_line(error)))


def _line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:500]


def _end_later(stopped: threading.Event) -> None:
    if not stopped.wait(GONE_GRACE_S):
        os._exit(RankLost.exit_code)
