"""Refusals in the words of the OpenAI API."""

from __future__ import annotations

import json
from typing import Any

from starlette.types import Send

_TYPES = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error", 408: "timeout_error",
          413: "invalid_request_error", 429: "rate_limit_error", 503: "service_unavailable_error"}  # fmt: skip


class Refused(Exception):
    def __init__(
        self, status: int, text: str, parameter: str | None = None, *, retry_after_s: float | None = None
    ) -> None:
        super().__init__(text)
        self.status, self.parameter, self.retry_after_s = status, parameter, retry_after_s

    def as_json(self) -> dict[str, Any]:
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "param": self.parameter, "code": self.status}}


async def refuse(send: Send, refusal: Refused) -> None:
    """Before anything was answered."""
    body = json.dumps(refusal.as_json()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refusal.retry_after_s is not None:
        headers.append((b"retry-after", str(max(1, round(refusal.retry_after_s))).encode()))
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if refusal.status in (408, 413):  # the rest of the body is not read
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def error_event(text: str) -> bytes:
    """The last event of a stream that cannot go on."""
    return b"data: " + json.dumps(Refused(502, text).as_json()).encode() + b"\n\n"
