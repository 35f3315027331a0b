"""slurm-power-agent: the node agent as a program."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path

import click

from slurm_power.cli.config_option import config_option
from slurm_power.cli.main import run_command
from slurm_power.compose_agent import AgentProcess, agent_process, node_name_of


@click.command(name="slurm-power-agent")
@config_option
@click.option("--node", help="Slurm's name of this node. Default: $SLURMD_NODENAME, else the short host name.")
@click.option("--monitor-only", is_flag=True, help="Read and report; never set a cap or a clock.")
@click.option("-v", "--verbose", is_flag=True, help="Log debugging details.")
def agent(config_path: Path, node: str | None, monitor_only: bool, verbose: bool) -> None:
    """Sample this node's GPUs, hold them at their caps, and give back what was found."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    for noisy in ("httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    name = node_name_of(node, os.environ)
    process = agent_process(config_path, node_name=name, monitor_only=monitor_only)
    _run(process)


def _run(process: AgentProcess) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: process.loop.stop())
    try:
        process.loop.run()
    finally:
        process.close()


def main() -> None:
    run_command(agent, prog_name="slurm-power-agent")


if __name__ == "__main__":
    main()
