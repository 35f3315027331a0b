"""JSON objects over a socket, one a line. What is not such a line counts as a hang-up: it is not one of ours."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import Any

MAX_LINE_BYTES = 64 * 1024
SEND_TIMEOUT_S = 5.0


class Lines:
    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(SEND_TIMEOUT_S)
        self.connection = connection
        self._received = b""

    def fileno(self) -> int:
        return self.connection.fileno()

    def send(self, message: Mapping[str, object]) -> bool:
        """False when the other side is gone; that shows on reading too, so nobody needs to act on it here."""
        try:
            self.connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            return False
        return True

    def receive(self) -> list[dict[str, Any]] | None:
        """What has come, after one read (which waits); None when the other side hung up or is not ours."""
        try:
            chunk = self.connection.recv(MAX_LINE_BYTES)
        except TimeoutError:
            return []
        except OSError:
            return None
        if not chunk:
            return None
        *whole, self._received = (self._received + chunk).split(b"\n")
        if len(self._received) > MAX_LINE_BYTES:
            return None
        try:
            messages = [json.loads(line) for line in whole]
        except (ValueError, RecursionError):
            return None
        return messages if all(isinstance(message, dict) for message in messages) else None

    def close(self) -> None:
        self.connection.close()
