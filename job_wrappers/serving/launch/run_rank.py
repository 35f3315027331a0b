"""One rank's life: meet the others, load the model, serve or do as told, leave with the exit code Slurm should see."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from job_wrappers.agent_client import AgentClient, job_id_of
from job_wrappers.energy_counters import keep_nvml_open
from job_wrappers.serving.engine.config import EngineConfig, EnginePorts
from job_wrappers.serving.engine.host import EngineHost
from job_wrappers.serving.engine.offline import rank_settings
from job_wrappers.serving.errors import ConfigError, DoesNotFit, RankLost, ServingError
from job_wrappers.serving.launch.clock import clock_through_agent
from job_wrappers.serving.launch.drawing_rank import make_rank
from job_wrappers.serving.launch.endpoint import (
    Endpoint,
    endpoint_folder,
    own_token,
    prepare_folder,
    read_token,
    registered,
    server_name,
    socket_folder,
)
from job_wrappers.serving.launch.energy import JobCounters, tell_joules
from job_wrappers.serving.launch.telemetry import ServingTelemetry
from job_wrappers.serving.ranks.channel import MemberChannel
from job_wrappers.serving.ranks.groups import open_groups
from job_wrappers.serving.ranks.rank import Rank
from job_wrappers.serving.ranks.seat import Seat
from job_wrappers.serving.ranks.team import Team
from job_wrappers.serving.ranks.worker import run_worker
from job_wrappers.serving.server.serve import DRAIN_SIGNALS, ServeOptions, Service, bind
from job_wrappers.training.devices import cuda_index, own_gpu
from job_wrappers.training.energy import gpus_of_rank
from job_wrappers.training.place import RankPlace
from job_wrappers.training.say import say
from job_wrappers.training.team import Team as RollCallTeam
from slurm_power.errors import SlurmPowerError
from training.errors import TrainingError

REQUEUE_EXIT_CODE = 75
"""After SIGUSR1: the site's RequeueExit, as for trainings. Slurm starts the server again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeLaunch:
    engine: EngineConfig
    place: RankPlace
    host: str
    port: int
    unix_socket: Path | None
    admin_token_file: Path | None
    drain_s: float
    rendezvous_timeout_s: float


def run_rank(launch: ServeLaunch) -> int:
    """The exit code; several ranks end in here. With one rank nobody is waited for."""
    counters = JobCounters(other_ranks=launch.place.world_size - 1)
    roll = RollCallTeam(launch.place, on_joules=counters.hear)
    _until_served(launch.place)
    try:
        if launch.place.world_size > 1:
            os.environ.update(roll.meet(timeout_s=launch.rendezvous_timeout_s))
        code = _run(launch, roll, counters)
        if code in (0, REQUEUE_EXIT_CODE):
            roll.part()
    except (ServingError, SlurmPowerError, TrainingError) as error:
        roll.say_failure(roll.lost or str(error))
        code = error.exit_code
    except Exception as error:  # a mistake of ours: the others must not wait for this rank
        roll.say_failure(f"{type(error).__name__}: {error}")
        roll.end_later(ServingError.exit_code)
        raise
    if launch.place.world_size > 1:  # Python's own clean-up may wait for peers that are gone
        roll.end(code)
    return code


def _run(launch: ServeLaunch, roll: RollCallTeam, counters: JobCounters) -> int:
    place, config = launch.place, launch.engine
    index, client = cuda_index(place), AgentClient.from_environment()
    device = torch.device("cpu") if index is None else torch.device("cuda", index)
    seat = Seat(rank=place.rank, tensor=config.tensor_parallel, pipeline=config.pipeline_parallel)
    group, store = open_groups(seat, device) if seat.world_size > 1 else (None, None)
    gpu = own_gpu(place, index, os.environ)
    set_clock = None if gpu is None else clock_through_agent(client, gpu)
    rank = make_rank(rank_settings(config), seat, device, group, gpu=gpu, set_clock=set_clock)
    gpus = gpus_of_rank(place, client, own_gpu=gpu)
    if gpus:
        keep_nvml_open()
    if seat.rank == 0:
        return _lead(launch, rank, store, counters, gpus)
    tell_joules(place, gpus, roll)
    run_worker(rank, MemberChannel(seat.rank, store))
    return 0


def _lead(launch: ServeLaunch, rank: Rank, store: Any, counters: JobCounters, gpus: tuple[str, ...]) -> int:
    """Rank 0. What a person must mend is nobody's loss: the other ranks end well, so that Slurm sees our exit code."""
    crash = _Crash()
    team = Team.gather(rank, store, on_lost=crash.tell)
    counters.use(gpus)
    try:
        with ExitStack() as stack:
            service, host = _serve(launch, team, counters, crash, stack)
            failed = service.run()
    except (ConfigError, DoesNotFit):
        team.stop()
        raise
    if failed is not None:
        raise RankLost(failed) if rank.seat.world_size > 1 else ServingError(failed)
    host.stop()
    return REQUEUE_EXIT_CODE if service.ended_by is signal.SIGUSR1 else 0


def _serve(
    launch: ServeLaunch, team: Team, counters: JobCounters, crash: _Crash, stack: ExitStack
) -> tuple[Service, EngineHost]:
    """The engine turns and the server is known; `stack` takes the server from the list again."""
    folder, name = endpoint_folder(os.environ), server_name(os.environ)
    unix_socket = (launch.unix_socket or socket_folder() / f"{name}.sock").absolute()
    for each in {folder, socket_folder()} if launch.unix_socket is None else {folder}:
        prepare_folder(each)
    token_file = stack.enter_context(own_token(launch.admin_token_file, folder, name))
    sock = stack.enter_context(bind(launch.host, launch.port))
    options = ServeOptions(sock=sock, unix_socket=unix_socket, token=read_token(token_file), drain_s=launch.drain_s)
    host = EngineHost(launch.engine, team, EnginePorts(read_joules=counters.total_joules, say=say))
    service = Service(host, options, say=say)
    crash.goes_to(service.crash)
    host.start(on_crash=crash.tell)
    endpoint = _endpoint(launch, host, name, sock, unix_socket, token_file)
    ready = f"serving {host.public_name} at {endpoint.url}"
    telemetry = _telemetry(host)
    if telemetry is not None:
        telemetry.start(ready)
        stack.callback(telemetry.close)
    sock.listen()  # whoever finds the endpoint from here on is let in, if not yet answered
    path = stack.enter_context(registered(endpoint, folder))
    say(f"{ready} (steer through {unix_socket} or {path})")
    return service, host


class _Crash:
    """Passes on what went wrong, also what did before anybody could hear it."""

    def __init__(self) -> None:
        self._text: str | None = None
        self._listener: Callable[[str], None] | None = None

    def tell(self, text: str) -> None:
        """From any thread."""
        self._text = self._text or text
        if self._listener is not None:
            self._listener(self._text)

    def goes_to(self, listener: Callable[[str], None]) -> None:
        self._listener = listener
        if self._text is not None:
            listener(self._text)


def _endpoint(
    launch: ServeLaunch, host: EngineHost, name: str, sock: socket.socket, unix_socket: Path, token_file: Path
) -> Endpoint:
    node = socket.gethostname()
    address = node if launch.host in ("0.0.0.0", "::") else launch.host
    return Endpoint(
        name=name,
        url=f"http://{f'[{address}]' if ':' in address else address}:{sock.getsockname()[1]}",
        unix_socket=str(unix_socket),
        token_file=str(token_file),
        node=node,
        pid=os.getpid(),
        models=tuple(model.name for model in launch.engine.models),
        public_name=host.public_name,
        started_unix_s=time.time(),
    )


def _telemetry(host: EngineHost) -> ServingTelemetry | None:
    """None outside a job."""
    try:
        return ServingTelemetry(AgentClient.from_environment(), job_id_of(), host.status)
    except SlurmPowerError:
        return None


def _until_served(place: RankPlace) -> None:
    """Signals while the model loads: nobody is served yet, so rank 0 ends at once; it decides for the others, too."""

    def end(number: int, frame: FrameType | None) -> None:
        say(f"{signal.Signals(number).name} before the server was ready")
        os._exit(REQUEUE_EXIT_CODE if number == signal.SIGUSR1 else 128 + number)

    for each in DRAIN_SIGNALS:
        signal.signal(each, end if place.rank == 0 else signal.SIG_IGN)
