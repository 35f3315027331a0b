"""slurm-powerd: the controller as a program. APScheduler runs its two loops, uvicorn its HTTP face."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
import uvicorn
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from slurm_power.cli.config_option import config_option
from slurm_power.cli.main import run_command
from slurm_power.compose import controller as build_controller
from slurm_power.compose import telemetry_upkeep
from slurm_power.daemons.controller import Controller
from slurm_power.daemons.controller_config import ControllerConfig
from slurm_power.errors import Unavailable
from slurm_power.ess.planner_config import PlannerConfig
from slurm_power.site_config import read_site_config
from slurm_power.web.app import create_app
from slurm_power.web.broadcast import Broadcast, live_parts
from slurm_power.web.tokens import read_admin_tokens

log = logging.getLogger("slurm_power.powerd")

UPKEEP_PERIOD_S = 60.0
"""Old telemetry is thinned so often, a little at a time."""

STOP_GRACE_S = 3
"""What a running tick and open connections get when the daemon is told to stop; longer than a report may take."""


@click.command(name="slurm-powerd")
@config_option
@click.option("--observe", is_flag=True, help="Refuse to start unless the config's mode is observe.")
@click.option("-v", "--verbose", is_flag=True, help="Log debugging details.")
def powerd(config_path: Path, observe: bool, verbose: bool) -> None:
    """Plan the site and keep its power promise until SIGTERM or SIGINT."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    for noisy in ("httpx", "httpcore", "apscheduler", "pymodbus"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    config = read_site_config(config_path)
    settings = config.table(ControllerConfig)
    if observe and settings.mode != "observe":
        raise click.UsageError(f"{config_path}: [controller] mode = {settings.mode}, but --observe was given")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    controller, slot_s = build_controller(config), config.table(PlannerConfig).slot_s
    _serve(controller, settings, stop, slot_s=slot_s, upkeep=telemetry_upkeep(config))


def _serve(
    controller: Controller,
    settings: ControllerConfig,
    stop: threading.Event,
    *,
    slot_s: float,
    upkeep: Callable[[], object] | None,
) -> None:
    door = _bind(settings.listen_host, settings.listen_port)
    asks = controller.live.asks()
    if controller.pools is not None:
        asks["pools"] = controller.pools.view
    broadcast = Broadcast(live_parts(asks))
    app = create_app(
        controller,
        pools=controller.pools,
        broadcast=broadcast,
        admin=controller.desk,
        tokens=None if settings.admin_token_file is None else read_admin_tokens(settings.admin_token_file),
        metrics=controller.metrics,
    )
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=STOP_GRACE_S)
    server = uvicorn.Server(config)
    web = threading.Thread(target=server.run, kwargs={"sockets": [door]}, name="web", daemon=True)
    rounds = [
        Round("fast", controller.fast_tick, settings.fast_period_s),
        Round("tick", controller.tick, settings.tick_period_s),
    ]
    if controller.watches_parts:
        rounds.append(Round("parts", controller.parts_tick, settings.fast_period_s))
    if controller.learns:
        rounds.append(Round("learning", controller.learn_tick, slot_s))
    if upkeep is not None:
        rounds.append(Round("telemetry", upkeep, UPKEEP_PERIOD_S))
    scheduler = _schedule(rounds)
    web.start()
    scheduler.start()
    log.info("%s mode; listening on %s:%s", settings.mode, settings.listen_host, settings.listen_port)
    stop.wait()
    log.info("stopping: deferrals, reservations, leases and the PCS's setpoint end by themselves")
    scheduler.shutdown(wait=False)
    broadcast.close()
    server.should_exit = True
    ended = [one.name for one in rounds if one.end(timeout_s=STOP_GRACE_S)]
    web.join(timeout=STOP_GRACE_S + 1)
    controller.close()
    if len(ended) < len(rounds):
        # A round that hangs (in a dead slurmctld's answer) would keep the process; it is safe to cut off anywhere.
        log.warning("a round still runs and is cut off")
        logging.shutdown()
        os._exit(0)


def _bind(host: str, port: int) -> socket.socket:
    """Bind before anything starts, so that a taken port is one clear line."""
    try:
        return socket.create_server((host, port))
    except OSError as cause:
        raise Unavailable(f"cannot listen on {host}:{port}: {cause.strerror}") from cause


class Round:
    """One of the two loops' work. A bad round must not end the daemon, a hanging one not keep it from ending."""

    def __init__(self, name: str, job: Callable[[], object], period_s: float) -> None:
        self.name, self.period_s = name, period_s
        self._job = job
        self._idle = threading.Lock()

    def run(self) -> None:
        with self._idle:
            try:
                self._job()
            except Exception:  # the daemon's outermost loop
                log.exception("%s failed; the next round will try again", self.name)

    def end(self, *, timeout_s: float) -> bool:
        """True once none runs; none begins after that."""
        return self._idle.acquire(timeout=timeout_s)


def _schedule(rounds: Sequence[Round]) -> BackgroundScheduler:
    """Each loop has its own thread: a slow slurmctld never delays the battery."""
    scheduler = BackgroundScheduler(executors={one.name: ThreadPoolExecutor(1) for one in rounds})
    for one in rounds:
        scheduler.add_job(
            one.run,
            "interval",
            seconds=one.period_s,
            executor=one.name,
            id=one.name,
            name=one.name,
            max_instances=1,
            coalesce=True,
            misfire_grace_time=None,
            next_run_time=datetime.now(UTC),
        )
    return scheduler


def main() -> None:
    run_command(powerd)
