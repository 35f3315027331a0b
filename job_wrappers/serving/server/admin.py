"""The steering API under /admin: look at the engine, change its batch size, model and clock while it serves."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from dataclasses import asdict

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from job_wrappers.serving.errors import BadRequest, RequestRefused, ServingError
from job_wrappers.serving.server.completions import json_response, read_json
from job_wrappers.serving.server.engine_client import EngineClient
from job_wrappers.serving.server.fields import Fields

_EFFECT_S, _LOOK_S = 2.0, 0.02
"""How long an answer waits to say after what time the change was in force."""


class Forbidden(RequestRefused):
    status = 403


class NotFound(RequestRefused):
    status = 404


class NotSteerable(RequestRefused):
    """The engine could not do it; all stays as it was."""

    status = 409


class Steering:
    def __init__(self, engine: EngineClient, *, token: str | None, trusted: bool) -> None:
        self._engine, self._token, self._trusted = engine, token, trusted
        self._actions: dict[str, Callable[[Fields], object]] = {
            "limits": self._limits,
            "model": lambda body: engine.switch_model(body.text("model")),
            "sleep": lambda body: engine.sleep(),
            "wake": lambda body: engine.wake(),
            "clock": self._clock,
            "drain": lambda body: engine.drain(),
        }

    def routes(self) -> list[Route]:
        return [
            Route("/admin/status", self.status, methods=["GET"]),
            Route("/admin/{action}", self.steer, methods=["POST"]),
        ]

    async def status(self, http: HttpRequest) -> Response:
        self._check(http)
        return json_response(asdict(self._engine.status()))

    async def steer(self, http: HttpRequest) -> Response:
        """The status afterwards."""
        self._check(http)
        action = self._actions.get(http.path_params["action"])
        if action is None:
            raise NotFound(f"no such action: there are {', '.join(self._actions)}")
        body = Fields(await read_json(http))
        try:
            await asyncio.to_thread(action, body)
        except RequestRefused:
            raise
        except ServingError as cause:
            raise NotSteerable(str(cause)) from cause
        await self._effect()
        return json_response(asdict(self._engine.status()))

    async def _effect(self) -> None:
        """While requests run, wait for the first iteration under the change."""
        for _ in range(int(_EFFECT_S / _LOOK_S)):
            steered = self._engine.status().last_steered
            if steered is None or steered.effect_s is not None or not self._engine.unfinished():
                return
            await asyncio.sleep(_LOOK_S)

    def _limits(self, body: Fields) -> None:
        max_num_seqs, max_batched_tokens = body.whole("max_num_seqs"), body.whole("max_batched_tokens")
        if max_num_seqs is None and max_batched_tokens is None:
            raise BadRequest("give max_num_seqs or max_batched_tokens")
        self._engine.set_limits(max_num_seqs=max_num_seqs, max_batched_tokens=max_batched_tokens)

    def _clock(self, body: Fields) -> None:
        mhz = body.whole("sm_clock_mhz")
        if mhz is not None and not 0 < mhz < 100_000:
            raise BadRequest(f"sm_clock_mhz = {mhz}: must be above 0, or null", parameter="sm_clock_mhz")
        self._engine.set_clock(mhz)

    def _check(self, http: HttpRequest) -> None:
        if self._trusted:
            return
        given = http.headers.get("authorization", "").removeprefix("Bearer ")
        if self._token is None or not hmac.compare_digest(given.encode(), self._token.encode()):
            raise Forbidden("steering needs the token of --admin-token-file, or the Unix socket")
