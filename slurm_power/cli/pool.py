"""slurm-power-pool: the pool manager and its router as a program."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from pathlib import Path

import click

from slurm_power.cli.main import run_command
from slurm_power.compose_pool import PoolProcess, pool_process
from slurm_power.daemons.pool_config import LAYERS
from slurm_power.errors import Unavailable
from slurm_power.web.router import RouterApp, RouterParts
from slurm_power.web.router_server import RouterServer, bind, new_event_loop, settle_memory

log = logging.getLogger("slurm_power.pool")

DEFAULT_CONFIG = "/etc/slurm-power/slurm-power-pool.toml"


@click.command(name="slurm-power-pool")
@click.option(
    "--config",
    "pool_config",
    type=click.Path(path_type=Path),
    default=DEFAULT_CONFIG,
    envvar="SLURM_POWER_POOL_CONFIG",
    show_default=True,
    show_envvar=True,
)
@click.option(
    "--layers",
    default=",".join(LAYERS),
    show_default=True,
    help="Which of them act, so that each one's saving can be shown alone; `none`: all instances run, as they are.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log debugging details.")
def pool(pool_config: Path, layers: str, verbose: bool) -> None:
    """Route requests to language models, and keep as many instances at as low a clock as they need.

    \b
    cluster   how many instances there are, in which pools, of how many GPUs
    queue     which instance a request goes to, which waits, which is refused
    instance  the clock and the batch of each instance

    SIGTERM ends it; instances go on serving, and the next one finds them.
    """
    chosen = frozenset() if layers == "none" else frozenset(layers.split(","))
    unknown = chosen - set(LAYERS)
    if unknown:
        raise click.UsageError(f"--layers {','.join(sorted(unknown))!a}: must be of {', '.join(LAYERS)}, or none")
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    for noisy in ("httpx", "httpcore", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_run(pool_config, chosen))


async def _run(config_path: Path, layers: frozenset[str]) -> None:
    process = pool_process(config_path, layers=layers)
    door = bind(process.router.listen_host, process.router.listen_port)
    server = RouterServer(RouterApp(_parts(process)))
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    serving = asyncio.ensure_future(server.serve(sockets=[door]))
    managing = asyncio.ensure_future(process.manager.run())
    stopping = asyncio.ensure_future(stop.wait())
    settle_memory()
    log.info("layers %s; routing on port %d", ",".join(sorted(layers)) or "none", door.getsockname()[1])
    await asyncio.wait({serving, managing, stopping}, return_when=asyncio.FIRST_COMPLETED)
    log.info("stopping: instances go on, requests that run may end")
    process.desk.refuse_all("the router ends")
    server.should_exit = True
    managing.cancel()
    stopping.cancel()
    await serving
    with contextlib.suppress(asyncio.CancelledError):
        await managing
    process.streams.close()
    if not stop.is_set():
        raise Unavailable("the router ended by itself: see its log")


def _parts(process: PoolProcess) -> RouterParts:
    return RouterParts(
        desk=process.desk,
        streams=process.streams,
        callers=process.keys,
        models=process.models,
        pools=process.view,
        max_body_bytes=process.router.max_body_bytes,
    )


def main() -> None:
    run_command(pool, prog_name="slurm-power-pool")


if __name__ == "__main__":
    main()
    sys.exit()
