"""The link against peers that misbehave on the wire or lay their map out differently."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import pytest

from slurm_power.adapters.meter_sunspec import SunSpecMeter, SunSpecMeterConfig
from slurm_power.adapters.sunspec_link import SunSpecLink
from slurm_power.errors import Unavailable
from slurm_power.testing.fake_clock import FakeClock

Answer = Callable[[socket.socket, bytes], None]


@contextmanager
def peer(answer: Answer) -> Iterator[int]:
    """A Modbus TCP peer that treats every request as `answer` says; its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            with suppress(OSError):
                line, _ = listener.accept()
                with line:
                    line.settimeout(5.0)
                    while request := line.recv(300):
                        answer(line, request)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        ended.set()
        with suppress(OSError):
            socket.create_connection(listener.getsockname(), timeout=1.0).close()
        listener.close()
        thread.join(10.0)
        assert not thread.is_alive()


@contextmanager
def meter_on(port: int, *, timeout_s: float = 0.4) -> Iterator[SunSpecMeter]:
    config = SunSpecMeterConfig(host="127.0.0.1", port=port, timeout_s=timeout_s, import_is_positive=True)
    meter = SunSpecMeter(config, clock=FakeClock())
    with closing(meter):
        yield meter


def registers(request: bytes, words: list[int]) -> bytes:
    """A whole answer to a read request."""
    data = b"".join(word.to_bytes(2, "big") for word in words)
    return request[:4] + struct.pack(">HBBB", 3 + len(data), request[6], request[7], len(data)) + data


def map_of(words: dict[int, int]) -> Answer:
    def answer(line: socket.socket, request: bytes) -> None:
        address, count = struct.unpack(">HH", request[8:12])
        line.sendall(registers(request, [words.get(address + i, 0) for i in range(count)]))

    return answer


def never(line: socket.socket, request: bytes) -> None:
    pass


def hang_up(line: socket.socket, request: bytes) -> None:
    line.shutdown(socket.SHUT_RDWR)


def noise(line: socket.socket, request: bytes) -> None:
    line.sendall(b"\xff" * 64)


def drip(line: socket.socket, request: bytes) -> None:
    with suppress(OSError):
        for byte in registers(request, [0x5375, 0x6E53]):
            line.sendall(bytes([byte]))
            time.sleep(0.2)


def old_answer(line: socket.socket, request: bytes) -> None:
    transaction = int.from_bytes(request[:2], "big") + 7
    line.sendall(transaction.to_bytes(2, "big") + registers(request, [0x5375, 0x6E53])[2:])


@pytest.mark.parametrize("answer", [never, hang_up, noise, drip, old_answer])
def test_a_peer_that_makes_no_sense_is_unavailable_in_bounded_time(answer: Answer) -> None:
    with peer(answer) as port, meter_on(port, timeout_s=0.4) as meter:
        started_s = time.monotonic()
        with pytest.raises(Unavailable):
            meter.read()
        # Twice the time-out where bytes keep coming, and room for a busy machine.
        assert time.monotonic() - started_s < 4.0


def test_a_modbus_device_without_a_sunspec_map_is_named() -> None:
    with peer(map_of({})) as port, meter_on(port) as meter, pytest.raises(Unavailable, match="no SunSpec map"):
        meter.read()


def test_a_model_list_that_never_ends_is_given_up() -> None:
    endless = {40_000: 0x5375, 40_001: 0x6E53}  # then model 0 of length 0, for ever
    refused = pytest.raises(Unavailable, match="does not end")
    with peer(map_of(endless)) as port, meter_on(port, timeout_s=5.0) as meter, refused:
        meter.read()


def test_a_map_may_start_at_another_base_address() -> None:
    words = {0: 0x5375, 1: 0x6E53, 2: 203, 3: 105, 2 + 18: 1234, 2 + 22: 1, 109: 0xFFFF}
    with peer(map_of(words)) as port, meter_on(port) as meter:
        assert meter.read().import_watts == 12_340.0


def float_meter(watts: float) -> Answer:
    high, low = struct.unpack(">HH", struct.pack(">f", watts))
    # Model 213: W is at offset 28.
    head = {40_000: 0x5375, 40_001: 0x6E53, 40_002: 213, 40_003: 124}
    return map_of({**head, 40_030: high, 40_031: low, 40_128: 0xFFFF})


def test_float_meters_are_read() -> None:
    with peer(float_meter(-1500.5)) as port, meter_on(port) as meter:
        assert meter.read().export_watts == 1500.5


def test_not_a_number_is_unknown() -> None:
    unknown = pytest.raises(Unavailable, match="implement W")
    with peer(float_meter(float("nan"))) as port, meter_on(port) as meter, unknown:
        meter.read()


def test_nobody_listening_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with meter_on(port) as meter, pytest.raises(Unavailable, match="no connection"):
        meter.read()


def test_the_message_names_the_device() -> None:
    link = SunSpecLink(name="PCS", host="127.0.0.1", port=1, unit_id=9, timeout_s=0.2)
    with pytest.raises(Unavailable, match=r"PCS 127\.0\.0\.1:1 unit 9"):
        link.operate(link.models)
