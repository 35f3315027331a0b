"""`slurm-power cluster`: a real Slurm of several emulated nodes on this machine."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from slurm_power.demo.playground import Playground
from slurm_power.errors import ConfigError
from slurm_power.testing.cluster import ClusterStatus, DevCluster

DEFAULT_DIRECTORY = Path("build/cluster")

_directory = click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_DIRECTORY,
    show_default=True,
    help="Folder that holds everything of this cluster.",
)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def cluster() -> None:
    """Run a development cluster: real Slurm, emulated GPUs, one directory, this machine only."""


@cluster.command()
@_directory
@click.option("--nodes", type=int, help="Nodes; a new cluster has 4.")
@click.option("--gpus-per-node", type=int, help="Emulated GPUs of each node; a new cluster has 4.")
@click.option("--fresh", is_flag=True, help="Forget the jobs of an earlier time.")
@click.option(
    "--power/--no-power",
    default=True,
    show_default=True,
    help="Also a simulated site, the node agents and the controller; without them only Slurm.",
)
@_as_json
def up(directory: Path, nodes: int | None, gpus_per_node: int | None, fresh: bool, power: bool, as_json: bool) -> None:
    """Start it, or what is missing of it; wait until every node can take jobs."""
    one = _cluster(directory, nodes, gpus_per_node)
    started = one.up(fresh=fresh)
    playground = Playground(one)
    if power:
        playground.start()
    if as_json:
        click.echo(json.dumps({"started": started, **one.status().as_json()}, indent=1))
        return
    click.echo(f"{'up' if started else 'already running'}: {len(one.node_names())} nodes in {one.directory}")
    for line in [*one.advice(), *(playground.advice() if power else [])]:
        click.echo(line)


@cluster.command()
@_directory
@_as_json
def down(directory: Path, as_json: bool) -> None:
    """Stop what was started from the directory, and nothing else; also after a crash."""
    stopped = DevCluster(directory).down()
    if as_json:
        click.echo(json.dumps({"stopped": stopped}))
    else:
        click.echo(f"stopped: {', '.join(stopped)}" if stopped else f"nothing runs in {directory}")


@cluster.command()
@_directory
@_as_json
def status(directory: Path, as_json: bool) -> None:
    """Daemons, nodes and jobs."""
    found = DevCluster(directory).status()
    if as_json:
        click.echo(json.dumps(found.as_json(), indent=1))
    else:
        _draw(found)


@cluster.command()
@_directory
@click.argument("daemon", required=False)
@click.option("-f", "--follow", is_flag=True, help="Wait for more.")
@click.option("-n", "--lines", type=int, default=20, show_default=True, help="How many of the last lines.")
def logs(directory: Path, daemon: str | None, follow: bool, lines: int) -> None:
    """Show the log of one daemon (munged, slurmctld, slurmd-n1, ...), or of all."""
    files = _log_files(DevCluster(directory).layout.log, daemon)
    tail = ["tail", f"--lines={lines}", *(["--follow=name"] if follow else []), *map(str, files)]
    subprocess.run(tail, check=False)


def _cluster(directory: Path, nodes: int | None, gpus_per_node: int | None) -> DevCluster:
    """As it was last time, but for what is named now."""
    if nodes is None and gpus_per_node is None:
        return DevCluster(directory)
    settings = DevCluster(directory).settings
    if nodes is not None:
        settings = replace(settings, node_count=nodes)
    if gpus_per_node is not None:
        settings = replace(settings, gpus_per_node=gpus_per_node)
    return DevCluster(directory, settings)


def _log_files(folder: Path, daemon: str | None) -> list[Path]:
    # slurmctld and slurmd say everything twice: in their own log, and on standard error.
    found = {file.stem: file for suffix in (".out", ".log") for file in sorted(folder.glob(f"*{suffix}"))}
    if not found:
        raise ConfigError(f"dir = {folder.parent}: no cluster has run there")
    if daemon is None:
        return list(found.values())
    if daemon not in found:
        raise ConfigError(f"daemon = {daemon}: must be one of {', '.join(sorted(found))}")
    return [found[daemon]]


def _draw(found: ClusterStatus) -> None:
    console = Console()
    if not found.daemons:
        console.print(f"nothing runs in {found.directory}")
        return
    table = Table("daemon", "pid")
    for name, pid in found.daemons.items():
        table.add_row(name, str(pid) if pid is not None else "[red]not running[/red]")
    console.print(table)
    if found.nodes is None:
        console.print("nodes and jobs: unknown, slurmctld does not answer")
        return
    console.print("nodes: " + ", ".join(f"{name} {state}" for name, state in found.nodes.items()))
    jobs = ", ".join(f"{count} {state.lower()}" for state, count in sorted((found.jobs or {}).items()))
    console.print(f"jobs: {jobs or 'none'}")
    console.print(f"export SLURM_CONF={found.slurm_conf}", soft_wrap=True)
