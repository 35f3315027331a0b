"""One encoder for all who watch: parts are asked for once; who does not keep up is dropped, not buffered for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from slurm_power.errors import Unavailable
from slurm_power.web import broadcast as module
from slurm_power.web.broadcast import QUEUE_FRAMES, Broadcast, Client, LivePart


class Site:
    """One part that changes with every ask, one that never does, one that is broken."""

    def __init__(self) -> None:
        self.asked = {"now": 0, "plan": 0, "broken": 0}

    def ask(self, name: str, content: Callable[[int], Any]) -> LivePart:
        def answer() -> Any:
            self.asked[name] += 1
            return content(self.asked[name])

        return LivePart(answer, 0.0)

    def parts(self) -> dict[str, LivePart]:
        def fail(_: int) -> Any:
            raise KeyError("no such view")

        return {
            "now": self.ask("now", lambda count: {"count": count}),
            "plan": self.ask("plan", lambda _: {"slots": []}),
            "broken": self.ask("broken", fail),
        }


@pytest.fixture
def site() -> Site:
    return Site()


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 30))  # type: ignore[arg-type]


def events(frame: bytes | None) -> list[tuple[str, Any]]:
    assert frame is not None
    found = []
    for block in frame.decode().split("\n\n"):
        if block:
            name, data = block.split("\n")
            found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def test_a_hundred_frames_for_three_clients_ask_each_part_once_a_frame(site: Site) -> None:
    async def test() -> None:
        broadcast = Broadcast(site.parts(), period_s=0.0)
        clients = [await broadcast.join() for _ in range(3)]
        for _ in range(100):
            frames = [await client.frames.get() for client in clients]
            assert frames[0] == frames[1] == frames[2]
        assert site.asked["now"] == broadcast.encodings
        broadcast.close()

    run(test)


def test_only_what_has_changed_is_sent_again(site: Site) -> None:
    async def test() -> None:
        broadcast = Broadcast(site.parts(), period_s=0.0)
        client = await broadcast.join()
        assert events(await client.frames.get()) == [("now", {"count": 1}), ("plan", {"slots": []})]
        assert events(await client.frames.get()) == [("now", {"count": 2})]
        broadcast.close()

    run(test)


def test_who_comes_later_gets_the_latest_of_everything_at_once(site: Site) -> None:
    async def test() -> None:
        broadcast = Broadcast(site.parts(), period_s=0.0)
        first = await broadcast.join()
        for _ in range(5):
            await first.frames.get()
        second = await broadcast.join()
        assert [name for name, _ in events(await second.frames.get())] == ["now", "plan"]
        broadcast.close()

    run(test)


def test_a_client_that_takes_nothing_is_dropped_and_nothing_is_kept_for_it(site: Site) -> None:
    async def test() -> None:
        broadcast = Broadcast(site.parts(), period_s=0.0)
        slow, quick = await broadcast.join(), await broadcast.join()
        for _ in range(QUEUE_FRAMES + 3):
            assert await quick.frames.get() is not None
        assert slow.dropped
        assert slow.frames.qsize() == 1, "only the end is left"
        assert await slow.frames.get() is None
        assert broadcast.clients == 1
        assert not quick.dropped
        broadcast.close()

    run(test)


def test_when_nobody_watches_nothing_is_asked(site: Site) -> None:
    async def test() -> None:
        broadcast = Broadcast(site.parts(), period_s=0.0)
        client = await broadcast.join()
        await client.frames.get()
        broadcast.leave(client)
        await asyncio.sleep(0.05)
        asked = site.asked["now"]
        await asyncio.sleep(0.05)
        assert site.asked["now"] == asked

    run(test)


def test_a_broken_part_does_not_take_the_others_with_it(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        broadcast = Broadcast(site.parts(), period_s=0.0)
        client = await broadcast.join()
        for _ in range(4):
            await client.frames.get()
        broadcast.close()

    run(test)
    assert site.asked["broken"] >= 4
    assert len([record for record in caplog.records if "broken" in record.getMessage()]) == 1, "told once"


def test_a_number_that_json_does_not_know_is_not_sent() -> None:
    async def test() -> None:
        broadcast = Broadcast({"now": LivePart(lambda: {"watts": float("nan")}, 0.0)})
        assert await broadcast.encode() == b""

    run(test)


def test_the_end_of_the_daemon_ends_every_stream(site: Site) -> None:
    async def test() -> None:
        broadcast = Broadcast(site.parts(), period_s=0.0)
        client = await broadcast.join()
        broadcast.close()
        while await client.frames.get() is not None:
            pass
        with pytest.raises(Unavailable):
            await broadcast.join()

    run(test)


def test_there_is_a_limit_to_how_many_may_watch(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CLIENTS", 2)

    async def test() -> None:
        broadcast = Broadcast(site.parts(), period_s=0.0)
        await broadcast.join()
        await broadcast.join()
        with pytest.raises(Unavailable, match="2 watch already"):
            await broadcast.join()
        broadcast.close()

    run(test)


def test_an_ended_client_stays_ended() -> None:
    async def test() -> None:
        client = Client()
        assert all(client.offer(b"x") for _ in range(QUEUE_FRAMES))
        assert not client.offer(b"x")
        assert await client.frames.get() is None

    run(test)
