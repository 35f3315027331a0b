"""Credentials that behave like munge's without a daemon: they expire, cannot be replayed and show forgery."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from itertools import count

from slurm_power.errors import NotPermitted, Unavailable
from slurm_power.ports.clock import Clock
from slurm_power.ports.credentials import Opened


class FakeKey:
    """The cluster's shared key and its memory of what was opened already."""

    def __init__(self, secret: bytes = b"cluster") -> None:
        self.secret = secret
        self.opened: set[str] = set()
        self.serial = count()


class FakeCredentials:
    def __init__(
        self, clock: Clock, key: FakeKey | None = None, *, uid: int = 0, gid: int = 0, ttl_s: float = 60.0
    ) -> None:
        self._clock = clock
        self._key = key if key is not None else FakeKey()
        self._uid, self._gid, self._ttl_s = uid, gid, ttl_s
        self.daemon_running = True

    def seal(self, payload: bytes) -> bytes:
        self._ask_daemon()
        body = {
            "payload": base64.b64encode(payload).decode(),
            "uid": self._uid,
            "gid": self._gid,
            "until_s": self._clock.wall_s() + self._ttl_s,
            "serial": next(self._key.serial),
        }
        text = base64.b64encode(json.dumps(body).encode()).decode()
        return f"{text}:{self._signed(text)}".encode()

    def open(self, sealed: bytes) -> Opened:
        self._ask_daemon()
        text, _, signature = sealed.decode("ascii", "replace").partition(":")
        if not hmac.compare_digest(signature.encode(), self._signed(text).encode()):
            raise NotPermitted("munge: Invalid credential")
        body = json.loads(base64.b64decode(text))
        if self._clock.wall_s() > body["until_s"]:
            raise NotPermitted("munge: Expired credential")
        if text in self._key.opened:
            raise NotPermitted("munge: Replayed credential")
        self._key.opened.add(text)
        return Opened(base64.b64decode(body["payload"]), body["uid"], body["gid"])

    def _signed(self, text: str) -> str:
        return hmac.new(self._key.secret, text.encode(), hashlib.sha256).hexdigest()

    def _ask_daemon(self) -> None:
        if not self.daemon_running:
            raise Unavailable("munge: Socket communication error")
