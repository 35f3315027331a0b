"""What the router adds to the time to the first token, at 500 requests a second on loopback, beside requests that go
straight to the same stub instance at the same time. `python -m bench.llm_router`."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slurm_power.testing.cluster.ports import free_ports
from slurm_power.web.router_server import new_event_loop

RATE_PER_S, SECONDS, WARM_S = 500.0, 12.0, 3.0
EVERY = 5
"""One in so many also goes straight to the stub."""

KEY = "bench-key-0123456789"
BODY = json.dumps({"model": "chat", "prompt": list(range(200)), "max_tokens": 3, "stream": True}).encode()


def measure(*, rate_per_s: float = RATE_PER_S, seconds: float = SECONDS) -> dict[str, float]:
    """Seconds. `router_added_ttft_p99_s`: p99 through the router less p99 straight, of the same seconds. As root all
    three processes go before whatever else runs on the machine, which is not what is measured."""
    with _before_all_others() as real_time:
        return {**_measure(rate_per_s, seconds), "real_time_priority": float(real_time)}


@contextmanager
def _before_all_others() -> Iterator[bool]:
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))  # children inherit it
    except PermissionError:
        yield False
        return
    try:
        yield True
    finally:
        os.sched_setscheduler(0, *before)


def _measure(rate_per_s: float, seconds: float) -> dict[str, float]:
    stub_port, router_port = free_ports(1)[0], free_ports(1)[0]
    with (
        tempfile.TemporaryDirectory(prefix="llm-router-") as folder,
        running(["slurm_power.testing.stub_instance", str(stub_port), "0", "0"]),
        running(["bench.llm_router", "serve", str(router_port), str(stub_port), folder]) as router,
    ):
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(_ready(router_port))
            began_cpu_s = _cpu_s(router.pid)
            through, straight = runner.run(_load(router_port, stub_port, rate_per_s, seconds))
        cpu_s = _cpu_s(router.pid) - began_cpu_s
    found = {"requests_per_s": rate_per_s, "router_cpu_s_per_request": cpu_s / (len(through) or 1)}
    for name, fraction in (("p50", 0.5), ("p99", 0.99)):
        found[f"router_ttft_{name}_s"] = _quantile(through, fraction)
        found[f"direct_ttft_{name}_s"] = _quantile(straight, fraction)
        found[f"router_added_ttft_{name}_s"] = found[f"router_ttft_{name}_s"] - found[f"direct_ttft_{name}_s"]
    return found


async def _load(router: int, stub: int, rate_per_s: float, seconds: float) -> tuple[list[float], list[float]]:
    """The first seconds open connections and are not counted."""
    clients = _Client(router), _Client(stub)
    seen: tuple[list[float], list[float]] = ([], [])
    running: set[asyncio.Task[None]] = set()

    async def one(which: int, counts: bool) -> None:
        took_s = await clients[which].first_token_s()
        if counts:
            seen[which].append(took_s)

    begin_s, number = time.perf_counter(), 0
    while number < rate_per_s * (seconds + WARM_S):
        due_s = begin_s + number / rate_per_s
        if (left_s := due_s - time.perf_counter()) > 0:
            await asyncio.sleep(left_s)
        counts = due_s - begin_s > WARM_S
        for which in (0, 1) if number % EVERY == 0 else (0,):
            task = asyncio.ensure_future(one(which, counts))
            running.add(task)
            task.add_done_callback(running.discard)
        number += 1
    await asyncio.gather(*running)
    return seen


class _Client:
    """As lean as can be: what it costs itself counts on both sides."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._request = (
            b"POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %s\r\n"
            b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (KEY.encode(), len(BODY), BODY)
        )

    async def first_token_s(self) -> float:
        if self._idle:
            reader, writer = self._idle.pop()
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        sent_s, got = time.perf_counter(), b""
        writer.write(self._request)
        while b"data: " not in got:
            got += await self._more(reader)
        took_s = time.perf_counter() - sent_s
        while not got.endswith(b"0\r\n\r\n"):
            got += await self._more(reader)
        self._idle.append((reader, writer))
        return took_s

    @staticmethod
    async def _more(reader: asyncio.StreamReader) -> bytes:
        part = await reader.read(65536)
        if not part:
            raise ConnectionError("closed in mid-answer")
        return part


async def _ready(port: int) -> None:
    until_s = time.monotonic() + 30.0
    while time.monotonic() < until_s:
        try:
            await _Client(port).first_token_s()
        except OSError:
            await asyncio.sleep(0.1)
        else:
            return
    raise RuntimeError("the router does not answer")


def _serve(port: int, stub_port: int, folder: Path) -> None:
    """A router as slurm-power-pool runs it, with keys, one pool and one instance."""
    from slurm_power.adapters.api_keys_file import ApiKeys
    from slurm_power.adapters.serving_stream_http import HttpInstanceStreams
    from slurm_power.daemons.pool_roster import PoolInstance, Roster
    from slurm_power.daemons.router_desk import Desk
    from slurm_power.llm.output_length import OutputLengths
    from slurm_power.llm.request_class import DEFAULT_SLO
    from slurm_power.llm.routing import LARGEST
    from slurm_power.web.router import RouterApp, RouterParts
    from slurm_power.web.router_server import RouterServer, bind, settle_memory

    keys = folder / "keys"
    keys.touch(mode=0o600)
    keys.write_text(f"bench:{KEY}\n")
    roster = Roster()
    instance = PoolInstance(1, LARGEST, gpus=1, seats=512, prefill_tokens_per_s=1e7, since_s=0.0)
    instance.url, instance.alive, instance.capacity_tokens = f"http://127.0.0.1:{stub_port}", True, 10**7
    roster.add(instance)
    desk = Desk(
        roster, slo=DEFAULT_SLO, lengths=OutputLengths(), now_s=time.monotonic, max_waiting=1024, patience_s=10.0,
        on_hurry=lambda pools: None,
    )  # fmt: skip
    parts = RouterParts(
        desk=desk, streams=HttpInstanceStreams(), callers=ApiKeys(keys), models=lambda: {"chat": True}, pools=dict,
        max_body_bytes=4 * 1024 * 1024,
    )  # fmt: skip
    settle_memory()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(RouterServer(RouterApp(parts)).serve(sockets=[bind("127.0.0.1", port)]))


@contextmanager
def running(arguments: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen([sys.executable, "-m", *arguments], stdout=subprocess.DEVNULL)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _quantile(values: list[float], fraction: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        _serve(int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
    else:
        print(json.dumps(measure(), indent=2))
