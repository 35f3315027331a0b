"""Opens a Unix socket that every user may talk to, in a directory that none of them may write."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from slurm_power.errors import ConfigError

_MAX_PATH_BYTES = 107  # sun_path of unix(7), less its final zero
_BACKLOG = 128


def listen_at(path: Path) -> socket.socket:
    """A listening, non-blocking socket with mode 0666. A socket file that nobody listens on is replaced.

    Raise ConfigError when somebody listens, the file is no socket, or users could replace it.
    """
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        raise ConfigError(f"socket = {path}: must have at most {_MAX_PATH_BYTES} bytes")
    try:
        _check_directory(path.parent)
        _remove_stale(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        listener.bind(os.fspath(path))
        path.chmod(0o666)
        listener.listen(_BACKLOG)
    except OSError as cause:
        raise ConfigError(f"socket = {path}: {cause.strerror}") from cause
    return listener


def _check_directory(directory: Path) -> None:
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    found = directory.stat()
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & stat.S_IWOTH:
        raise ConfigError(f"socket: {directory} must belong to root and not be writable by everybody")


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"socket = {path}: there is a file that is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:  # a full backlog is somebody listening
            pass
    raise ConfigError(f"socket = {path}: another agent listens there")
