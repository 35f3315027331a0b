"""`python -m slurm_power.testing.simulated_site --config FILE`: run the site until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from pathlib import Path

import click

from slurm_power.errors import ConfigError, SlurmPowerError
from slurm_power.testing.simulated_site.clock import HostClock
from slurm_power.testing.simulated_site.config import SimulatedSiteConfig, load_site_config
from slurm_power.testing.simulated_site.node_draws import NodeDraws
from slurm_power.testing.simulated_site.plant import Truth
from slurm_power.testing.simulated_site.site import SimulatedSite
from slurm_power.testing.simulated_site.truth_log import read_truth


@click.command()
@click.option("--config", "config_file", type=click.Path(path_type=Path), required=True, help="TOML file of the site.")
def main(config_file: Path) -> None:
    """Serve a simulated PCS with battery and its meters over SunSpec Modbus TCP."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("pymodbus").setLevel(logging.WARNING)
    try:
        asyncio.run(serve(load_site_config(config_file)))
    except SlurmPowerError as error:
        click.echo(f"simulated site: {error}", err=True)
        sys.exit(error.exit_code)


async def serve(config: SimulatedSiteConfig) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    nodes = NodeDraws([Path(path) for path in config.site.node_state_files])
    site = SimulatedSite(config, clock=HostClock(), it_watts=nodes.total_watts, csv_lines=_csv_lines(config))
    earlier = _earlier_truth(config)
    if earlier:
        site.resume(earlier[-1])
    port = await site.start()
    ready = {"host": config.site.host, "port": port, "pid": os.getpid(), "start_wall_s": site.start_wall_s}
    try:
        _tell_ready(ready, config.site.ready_file)
        await site.run_until(ended)
    finally:
        if config.site.ready_file is not None:
            Path(config.site.ready_file).unlink(missing_ok=True)
        await site.stop()
        nodes.close()


def _earlier_truth(config: SimulatedSiteConfig) -> list[Truth]:
    """Rows of an earlier process of this site; a log of something else is refused."""
    path = None if config.site.truth_log is None else Path(config.site.truth_log)
    try:
        return [] if path is None or not path.exists() else read_truth(path)
    except (KeyError, ValueError, TypeError) as cause:
        raise ConfigError(f"[site] truth_log = {path}: holds something else") from cause


def _csv_lines(config: SimulatedSiteConfig) -> list[str] | None:
    if config.load.csv_file is None:
        return None
    try:
        return Path(config.load.csv_file).read_text().splitlines()
    except OSError as cause:
        raise ConfigError(f"[load] csv_file = {config.load.csv_file}: {cause.strerror}") from cause


def _tell_ready(ready: dict[str, object], ready_file: str | None) -> None:
    if ready_file is not None:
        path = Path(ready_file)
        new = path.with_name(path.name + ".new")  # a reader sees the whole file or none
        new.write_text(json.dumps(ready) + "\n")
        new.replace(path)
    print(f"ready host={ready['host']} port={ready['port']}", flush=True)


if __name__ == "__main__":
    main()
