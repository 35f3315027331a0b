"""Where the server listens: a TCP port, and a Unix socket that only its owner may use."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import struct
from pathlib import Path

from uvicorn.protocols.http.h11_impl import H11Protocol

from job_wrappers.serving.errors import ConfigError, require

_MAX_PATH_BYTES = 107  # sun_path of unix(7), less its final zero
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: struct ucred of unix(7)


def bind(host: str, port: int) -> socket.socket:
    """Port 0: any that is free. Raise ConfigError when it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Its protocol is named so that asyncio sets TCP_NODELAY on what it accepts: else a token waits 40 ms for an ACK.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as cause:
        sock.close()
        raise ConfigError(f"--host {host} --port {port}: {cause.strerror}") from cause
    return sock


def bind_unix(path: Path) -> socket.socket:
    """Nobody else may connect: its mode is set before anybody can. A socket file that nobody listens on is replaced."""
    require(len(os.fsencode(path)) <= _MAX_PATH_BYTES, "--unix-socket", path, f"at most {_MAX_PATH_BYTES} bytes")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    found = os.umask(0o177)
    try:
        _remove_stale(path)
        sock.bind(os.fspath(path))
    except OSError as cause:
        sock.close()
        raise ConfigError(f"--unix-socket {path}: {cause.strerror}") from cause
    finally:
        os.umask(found)
    return sock


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    require(stat.S_ISSOCK(mode), "--unix-socket", path, "there is a file that is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise ConfigError(f"--unix-socket {path}: another server listens there")


class OwnersProtocol(H11Protocol):
    """HTTP for the process's own user and root; a connection of anybody else is closed. The socket's mode says the
    same, but whoever may write its directory could put another path before it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if _peer_uid(transport.get_extra_info("socket")) not in (0, os.getuid()):
            transport.close()


def _peer_uid(connection: socket.socket) -> int:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(raw)[1])
