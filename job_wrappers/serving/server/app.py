"""The HTTP service: OpenAI's endpoints, health, metrics, and the steering API under /admin."""

from __future__ import annotations

from contextlib import suppress

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from job_wrappers.serving.engine.views import ModelState
from job_wrappers.serving.errors import NotServing, RequestRefused, UnknownModel
from job_wrappers.serving.server import answers
from job_wrappers.serving.server.admin import Steering
from job_wrappers.serving.server.completions import complete, json_response
from job_wrappers.serving.server.exchange import Desk
from job_wrappers.serving.server.metrics import render


def build_app(desk: Desk, *, token: str | None, trusted: bool = False) -> Starlette:
    """`token`: bearer of /admin; None: /admin answers 403. `trusted`: behind a socket only its owner can open, so that
    no token is asked for."""
    service = _Service(desk)
    return Starlette(
        routes=[
            Route("/v1/models", service.models, methods=["GET"]),
            Route("/v1/models/{name:path}", service.model, methods=["GET"]),
            Route("/v1/completions", service.completions, methods=["POST"]),
            Route("/v1/chat/completions", service.chat, methods=["POST"]),
            Route("/health", service.health, methods=["GET"]),
            Route("/metrics", service.metrics, methods=["GET"]),
            *Steering(desk.engine, token=token, trusted=trusted).routes(),
        ],
        exception_handlers={RequestRefused: _refused, HTTPException: _no_such, Exception: _broken},
    )


class _Service:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def completions(self, http: HttpRequest) -> Response:
        return await complete(http, self._desk, chat=False)

    async def chat(self, http: HttpRequest) -> Response:
        return await complete(http, self._desk, chat=True)

    async def models(self, http: HttpRequest) -> Response:
        return json_response({"object": "list", "data": list(self._models().values())})

    async def model(self, http: HttpRequest) -> Response:
        name, known = http.path_params["name"], self._models()
        if name not in known:
            raise UnknownModel(f"the model {name!r} is not served here: {', '.join(known)}", parameter="model")
        return json_response(known[name])

    async def health(self, http: HttpRequest) -> Response:
        """503 keeps a load balancer from sending more; running requests still end."""
        status = self._desk.engine.status()
        if status.failure is not None or status.draining:
            content = {"status": status.failure or "draining"}
            return json_response(content, 503, {} if status.failure is not None else {"Retry-After": "5"})
        return json_response({"status": "ok"})

    async def metrics(self, http: HttpRequest) -> Response:
        content = render(self._desk.engine.status(), self._desk.answered)
        return PlainTextResponse(content, media_type="text/plain; version=0.0.4")

    def _models(self) -> dict[str, answers.Json]:
        """By name; the public one is whichever model is active."""
        status = self._desk.engine.status()
        states = {status.public_name: ModelState.ABSENT} | {view.name: view.state for view in status.models}
        states[status.public_name] = states.get(status.active, ModelState.ABSENT)
        shown = {"object": "model", "created": self._desk.started_unix_s, "owned_by": "slurm-power"}
        found = {name: {"id": name, **shown, "state": state} for name, state in states.items()}
        with suppress(NotServing):
            active = self._desk.engine.active()
            found[active.name]["max_model_len"] = found[active.public_name]["max_model_len"] = active.max_model_len
        return found


async def _refused(http: HttpRequest, refusal: Exception) -> Response:
    assert isinstance(refusal, RequestRefused), "registered for it"
    return json_response(answers.error(refusal), refusal.status, answers.error_headers(refusal))


async def _no_such(http: HttpRequest, cause: Exception) -> Response:
    """No such path, or not by this method."""
    assert isinstance(cause, HTTPException), "registered for it"
    refusal = RequestRefused(f"{http.method} {http.url.path}: {cause.detail}")
    refusal.status = cause.status_code
    return json_response(answers.error(refusal), cause.status_code, dict(cause.headers or {}))


async def _broken(http: HttpRequest, cause: Exception) -> Response:
    """A fault of ours, which the log shows with its place."""
    return json_response(answers.error(RequestRefused("the server made a mistake: see its log")), 500)
