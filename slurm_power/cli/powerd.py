"""slurm-powerd: the controller as a program. APScheduler runs its two loops, uvicorn its HTTP face."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import click
import uvicorn
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from slurm_power.cli.controller_client import DEFAULT_CONFIG
from slurm_power.cli.main import run_command
from slurm_power.compose import controller as build_controller
from slurm_power.daemons.controller import Controller
from slurm_power.daemons.controller_config import ControllerConfig
from slurm_power.errors import Unavailable
from slurm_power.site_config import read_site_config
from slurm_power.web.app import create_app

log = logging.getLogger("slurm_power.powerd")


@click.command(name="slurm-powerd")
@click.option(
    "--config", "config_path", type=click.Path(path_type=Path), envvar="SLURM_POWER_CONFIG", default=DEFAULT_CONFIG
)
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
    _serve(build_controller(config), settings, stop)


def _serve(controller: Controller, settings: ControllerConfig, stop: threading.Event) -> None:
    door = _bind(settings.listen_host, settings.listen_port)
    server = uvicorn.Server(uvicorn.Config(create_app(controller), log_level="warning", access_log=False))
    web = threading.Thread(target=server.run, kwargs={"sockets": [door]}, name="web")
    scheduler = _schedule(controller, settings)
    web.start()
    scheduler.start()
    log.info("%s mode; listening on %s:%s", settings.mode, settings.listen_host, settings.listen_port)
    stop.wait()
    log.info("stopping: deferrals, reservations, leases and the PCS's setpoint end by themselves")
    scheduler.shutdown(wait=True)
    server.should_exit = True
    web.join(timeout=10)
    controller.close()


def _bind(host: str, port: int) -> socket.socket:
    """Bind before anything starts, so that a taken port is one clear line."""
    try:
        return socket.create_server((host, port))
    except OSError as cause:
        raise Unavailable(f"cannot listen on {host}:{port}: {cause.strerror}") from cause


def _schedule(controller: Controller, settings: ControllerConfig) -> BackgroundScheduler:
    """Each loop has its own thread: a slow slurmctld never delays the battery."""
    scheduler = BackgroundScheduler(executors={"tick": ThreadPoolExecutor(1), "fast": ThreadPoolExecutor(1)})
    for name, job, period_s in (
        ("fast", controller.fast_tick, settings.fast_period_s),
        ("tick", controller.tick, settings.tick_period_s),
    ):
        scheduler.add_job(
            _outermost(name, job),
            "interval",
            seconds=period_s,
            executor=name,
            id=name,
            max_instances=1,
            coalesce=True,
            misfire_grace_time=None,
            next_run_time=datetime.now(UTC),
        )
    return scheduler


def _outermost(name: str, job: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        try:
            job()
        except Exception:  # the outermost loop: one bad round must not end the daemon
            log.exception("%s failed; the next round will try again", name)

    return run


def main() -> None:
    run_command(powerd)
