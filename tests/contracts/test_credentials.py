"""Every kind of credentials: what is sealed opens once, and only with the cluster's key."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from slurm_power.adapters.munge_credentials import MungeCredentials
from slurm_power.errors import NotPermitted, Unavailable
from slurm_power.ports.credentials import Credentials
from slurm_power.testing.fake_clock import FakeClock
from slurm_power.testing.fake_credentials import FakeCredentials, FakeKey


@dataclass
class Kind:
    credentials: Credentials
    stranger: Credentials  # of another cluster
    short_lived: Credentials
    wait: Callable[[], None]  # longer than a short life
    stop_daemon: Callable[[], None]


def fake_kind() -> Kind:
    clock, key = FakeClock(), FakeKey()
    credentials = FakeCredentials(clock, key, uid=os.geteuid(), gid=os.getegid())

    def stop_daemon() -> None:
        credentials.daemon_running = False

    return Kind(
        credentials,
        FakeCredentials(clock, FakeKey(b"another cluster")),
        FakeCredentials(clock, key, ttl_s=1.0),
        lambda: clock.advance(3.0),
        stop_daemon,
    )


class Munged:
    """A real munged with a key of its own, in the foreground so that it ends with the test."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o755)
        self.socket = folder / "s"
        key = folder / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        files = {"socket": self.socket, "key-file": key}
        files |= {f"{name}-file": folder / name for name in ("log", "pid", "seed")}
        options = [f"--{name}={path}" for name, path in files.items()]
        self._process = subprocess.Popen(
            ["munged", "--foreground", "--num-threads=1", *options], stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 10
        while not self.socket.exists():
            assert self._process.poll() is None, "munged ended at once"
            assert time.monotonic() < deadline, "munged made no socket"
            time.sleep(0.02)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)


def munge_kind(ours: Munged, other: Munged) -> Kind:
    return Kind(
        MungeCredentials(socket=ours.socket),
        MungeCredentials(socket=other.socket),
        MungeCredentials(socket=ours.socket, ttl_s=1),
        lambda: time.sleep(2.1),  # munge counts whole seconds
        ours.stop,
    )


@pytest.fixture(params=["fake", "munge"])
def kind(request: pytest.FixtureRequest) -> Iterator[Kind]:
    if request.param == "fake":
        yield fake_kind()
        return
    if os.geteuid() != 0 or shutil.which("munged") is None:
        pytest.skip("a munged of its own needs root and munge installed")
    with tempfile.TemporaryDirectory(prefix="munge-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        daemons = [Munged(Path(name) / "a"), Munged(Path(name) / "b")]
        try:
            yield munge_kind(*daemons)
        finally:
            for daemon in daemons:
                daemon.stop()


def test_what_was_sealed_opens_with_the_sealers_identity(kind: Kind) -> None:
    payload = b'{"zero": "\0", "text": "\xc3\xbc"}'
    opened = kind.credentials.open(kind.credentials.seal(payload))
    assert (opened.payload, opened.uid, opened.gid) == (payload, os.geteuid(), os.getegid())


def test_nothing_can_be_sealed_too(kind: Kind) -> None:
    assert kind.credentials.open(kind.credentials.seal(b"")).payload == b""


def test_a_report_of_a_large_node_fits(kind: Kind) -> None:
    payload = b"x" * 100_000
    assert kind.credentials.open(kind.credentials.seal(payload)).payload == payload


def test_a_credential_opens_only_once(kind: Kind) -> None:
    sealed = kind.credentials.seal(b"lease")
    kind.credentials.open(sealed)
    with pytest.raises(NotPermitted, match="Replayed"):
        kind.credentials.open(sealed)


def test_an_old_credential_does_not_open(kind: Kind) -> None:
    sealed = kind.short_lived.seal(b"lease")
    kind.wait()
    with pytest.raises(NotPermitted, match="Expired"):
        kind.credentials.open(sealed)


def test_another_clusters_credential_does_not_open(kind: Kind) -> None:
    with pytest.raises(NotPermitted):
        kind.credentials.open(kind.stranger.seal(b"lease"))


@pytest.mark.parametrize("sealed", [b"", b"garbage", b"MUNGE:AAAA:", b"\0\xff", b"MUNGE:" + b"A" * 1000 + b":"])
def test_what_is_no_credential_does_not_open(kind: Kind, sealed: bytes) -> None:
    with pytest.raises(NotPermitted):
        kind.credentials.open(sealed)


def test_a_changed_credential_does_not_open(kind: Kind) -> None:
    sealed = bytearray(kind.credentials.seal(b"lease"))
    sealed[20] = ord("A") if sealed[20] != ord("A") else ord("B")
    with pytest.raises(NotPermitted):
        kind.credentials.open(bytes(sealed))


def test_without_its_daemon_everything_waits(kind: Kind) -> None:
    sealed = kind.credentials.seal(b"lease")
    kind.stop_daemon()
    with pytest.raises(Unavailable):
        kind.credentials.seal(b"lease")
    with pytest.raises(Unavailable):
        kind.credentials.open(sealed)
