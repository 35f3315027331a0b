"""All models of a server: one is active, others sleep, load or drain. Steering and requests come from any thread.

Whatever touches a scheduler runs on the engine's thread, between iterations.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from job_wrappers.serving.engine.assemble import ModelShelf, assemble
from job_wrappers.serving.engine.config import EngineConfig, EnginePorts
from job_wrappers.serving.engine.energy import EnergyShares
from job_wrappers.serving.engine.figures import Figures
from job_wrappers.serving.engine.loop import EngineLoop
from job_wrappers.serving.engine.model_engine import Listener, ModelEngine
from job_wrappers.serving.engine.status import status_of
from job_wrappers.serving.engine.views import EngineStatus, ModelState, ServedModel, Steered
from job_wrappers.serving.errors import BadRequest, NotServing, ServingError, UnknownModel
from job_wrappers.serving.ranks.commands import Free, SetClock, Sleep
from job_wrappers.serving.ranks.team import Team
from job_wrappers.serving.requests.request import Request
from job_wrappers.serving.scheduling.scheduler import Limits


@dataclass(slots=True)
class _Wish:
    """A change that waits for its first iteration."""

    what: str
    since_s: float


class EngineHost:
    """Implements the server's EngineClient."""

    def __init__(self, config: EngineConfig, team: Team, ports: EnginePorts) -> None:
        self.config, self.team, self.ports = config, team, ports
        self.public_name = config.public_name or config.models[0].name
        self.figures = Figures(ports.now_s)
        self.shares = EnergyShares(ports.read_joules, ports.now_s)
        self.shelf = ModelShelf(config, team)
        self.engines: dict[str, ModelEngine] = {}
        self.states = {model.name: ModelState.ABSENT for model in config.models}
        self.active_name = config.models[0].name
        self.draining = False
        self.failure: str | None = None
        self.sm_clock_mhz: int | None = None
        self.switch_s: float | None = None
        self.steered: Steered | None = None
        self._created_unix_s = int(time.time())
        self._wish: _Wish | None = None
        self._switching = threading.Lock()
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="retire")
        self._retired: Future[None] | None = None
        self._on_crash: Callable[[str], None] = ports.say
        self.loop = EngineLoop(self.iterate, on_crash=self._crashed)
        self.limits = self.shelf.limits
        self._awaken(self.active_name)
        self.states[self.active_name] = ModelState.ACTIVE

    def start(self, *, on_crash: Callable[[str], None]) -> None:
        """`on_crash` is called on the engine's thread, after every request was told."""
        self._on_crash = on_crash
        self.loop.start()

    def stop(self) -> None:
        self.loop.stop()
        self._beside.shutdown()
        self.team.stop()

    # --- requests ---------------------------------------------------------------------------------------------------

    def active(self) -> ServedModel:
        engine = self.engines.get(self.active_name)
        if engine is None:
            raise NotServing("the model sleeps", retry_after_s=5.0)
        return ServedModel(
            name=engine.name,
            public_name=self.public_name,
            names=frozenset({self.public_name, *self.states}),
            text=engine.text,
            vocabulary=self.shelf.vocabulary(engine.name),
            max_model_len=engine.scheduler.max_model_len,
            created_unix_s=self._created_unix_s,
        )

    def submit(self, request: Request, listener: Listener) -> Future[None]:
        """Taken, or refused with a RequestRefused kind, before the next iteration. The listener is called on the
        engine's thread."""
        return self.loop.post(lambda: self._submit(request, listener))

    def cancel(self, request_id: str) -> None:
        self.loop.post(lambda: self._cancel(request_id))

    def _cancel(self, request_id: str) -> None:
        for engine in self.engines.values():
            engine.cancel(request_id)

    def _submit(self, request: Request, listener: Listener) -> None:
        if self.draining:
            raise NotServing("the server is draining", retry_after_s=5.0)
        engine = self.engines.get(request.model)
        if request.model == self.active_name and self.states[request.model] is not ModelState.ACTIVE:
            raise NotServing("the model goes to sleep", retry_after_s=5.0)
        if engine is None or self.states[request.model] is not ModelState.ACTIVE:
            raise NotServing(f"{request.model} is not active any more", retry_after_s=0.0)
        engine.submit(request, listener)
        self.loop.wake()

    # --- steering ---------------------------------------------------------------------------------------------------

    def set_limits(self, *, max_num_seqs: int | None = None, max_batched_tokens: int | None = None) -> Limits:
        """In force from the next iteration on. Raise BadRequest for a limit that is not possible."""
        for key, value in (("max_num_seqs", max_num_seqs), ("max_batched_tokens", max_batched_tokens)):
            if value is not None and value < 1:
                raise BadRequest(f"{key} = {value}: must be at least 1", parameter=key)
        most = self.shelf.limits.max_batched_tokens
        if max_batched_tokens is not None and max_batched_tokens > most:
            rule = f"must be at most {most}, with which memory was measured at the start"
            raise BadRequest(f"max_batched_tokens = {max_batched_tokens}: {rule}", parameter="max_batched_tokens")
        return self.loop.call(lambda: self._set_limits(max_num_seqs, max_batched_tokens))

    def _set_limits(self, max_num_seqs: int | None, max_batched_tokens: int | None) -> Limits:
        old = self.limits
        self.limits = Limits(
            max_num_seqs=max_num_seqs or old.max_num_seqs,
            max_batched_tokens=max_batched_tokens or old.max_batched_tokens,
            max_waiting=old.max_waiting,
        )
        for engine in self.engines.values():
            engine.scheduler.limits = self.limits
        self._note_wish(f"max_num_seqs {self.limits.max_num_seqs}, max_batched_tokens {self.limits.max_batched_tokens}")
        return self.limits

    def set_clock(self, mhz: int | None) -> None:
        """Raise ServingError where no clock can be set."""
        self.loop.call(lambda: self.team.call(SetClock(mhz)))
        self.sm_clock_mhz = mhz
        self._note_wish(f"SM clock {mhz or 'free'}")

    def switch_model(self, name: str) -> None:
        """Returns when the other model takes requests; those that run on the old one end there. Raise UnknownModel,
        NotServing while another switch goes on, ServingError if it cannot be loaded: then all stays as it was."""
        if name not in self.states:
            raise UnknownModel(f"no model {name}: there are {', '.join(self.states)}", parameter="model")
        if not self._switching.acquire(blocking=False):
            raise NotServing("another switch is going on", retry_after_s=5.0)
        try:
            if self.states[name] is not ModelState.ACTIVE:
                began_s = self.ports.now_s()
                self._switch(name)
                self.switch_s = self.ports.now_s() - began_s
        finally:
            self._switching.release()

    def _switch(self, name: str) -> None:
        if self.loop.call(lambda: self._activate(name)):
            return  # it was still awake
        if len(self.engines) > 1:  # memory is shared out for two
            raise NotServing("the model before the last still finishes its requests", retry_after_s=5.0)
        self.settle()
        self.states[name] = ModelState.LOADING
        try:
            self.shelf.fetch(name)  # beside the iterations of the model that still serves
            self.loop.call(lambda: self._awaken(name))
        except ServingError:
            self.shelf.drop(name)
            self.states[name] = ModelState.ABSENT
            raise
        self.loop.call(lambda: self._activate(name))

    def settle(self) -> None:
        """Wait for models that are being put to sleep."""
        retired, self._retired = self._retired, None
        if retired is not None:
            retired.result()

    def _awaken(self, name: str) -> None:
        self.engines[name] = assemble(self, name)

    def _activate(self, name: str) -> bool:
        """False: it is not awake."""
        if name not in self.engines:
            return False
        old = self.active_name
        if old != name and old in self.engines:
            self.states[old] = ModelState.DRAINING
        self.active_name = name
        self.states[name] = ModelState.ACTIVE
        self._note_wish(f"model {name}")
        self.loop.wake()
        return True

    def sleep(self) -> None:
        """New requests are refused with 503; when what runs has ended the model sleeps."""

        def begin() -> None:
            if self.active_name in self.engines:
                self.states[self.active_name] = ModelState.DRAINING
                self.loop.wake()

        self.loop.call(begin)

    def wake(self) -> None:
        """The model that was active serves again."""
        self.switch_model(self.active_name)

    def drain(self) -> None:
        """New requests are refused from now on."""
        self.draining = True

    def unfinished(self) -> int:
        return sum(len(engine.live_requests()) for engine in list(self.engines.values()))

    def status(self) -> EngineStatus:
        return status_of(self)

    # --- the engine's thread ----------------------------------------------------------------------------------------

    def iterate(self) -> bool:
        """One iteration of every model that has work. False: none had."""
        stepped = False
        for engine in list(self.engines.values()):
            stepped |= engine.step()
            if self.states[engine.name] is ModelState.DRAINING and not engine.has_work:
                self._retire(engine)
        if stepped and self._wish is not None:
            self.steered = Steered(what=self._wish.what, effect_s=self.ports.now_s() - self._wish.since_s)
            self._wish = None
        if not stepped:
            self.shares.pause()
        return stepped

    def _retire(self, engine: ModelEngine) -> None:
        """Nothing runs on it any more. What follows may take seconds, so it is done beside the iterations."""
        del self.engines[engine.name]
        self._retired = self._beside.submit(self._put_away, engine.name)

    def _put_away(self, name: str) -> None:
        """Its cache is freed; its weights sleep, or are dropped."""
        sleeps = self.config.after_switch == "sleep" or name == self.active_name
        self.team.call(Sleep(name) if sleeps else Free(name))
        self.shelf.retired(name, sleeps=sleeps)
        self.states[name] = ModelState.ASLEEP if sleeps else ModelState.ABSENT

    def _note_wish(self, what: str) -> None:
        self._wish = _Wish(what, self.ports.now_s())
        self.steered = Steered(what=what, effect_s=None)

    def _crashed(self, error: BaseException) -> None:
        text = str(error) or type(error).__name__
        self.failure = text
        for engine in self.engines.values():
            engine.fail_all(text)
        self._on_crash(text)
