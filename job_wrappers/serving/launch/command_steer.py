"""slurm-power-serve steer: look at a running server, and change it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import httpx
from rich.console import Console
from rich.table import Table

from job_wrappers.serving.errors import ConfigError, RankLost, ServingError
from job_wrappers.serving.launch.endpoint import endpoint_folder, find_endpoint, read_token

_TIMEOUT_S = 300.0
"""Reading a large model takes long; the server itself answers at once when it cannot."""


class Refused(ServingError):
    """The server said no."""

    exit_code = 5


Server = Callable[[str, dict[str, Any] | None], dict[str, Any]]


@click.group()
@click.option("--job", help="Number of the serving job; not needed when there is only one server.")
@click.option("--unix-socket", type=click.Path(path_type=Path), help="The server's socket.")
@click.option("--url", help="The server, over HTTP; needs --token-file.")
@click.option("--token-file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def steer(
    ctx: click.Context,
    job: str | None,
    unix_socket: Path | None,
    url: str | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Steer a running server: its batch size, model, clock. Each command prints the status afterwards."""

    def ask(path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        return _ask(_client(job, unix_socket, url, token_file), path, body)

    ctx.obj = (ask, as_json)


@steer.command()
@click.pass_obj
def status(obj: tuple[Server, bool]) -> None:
    """What it does now: requests, slack, tokens, joules, memory."""
    _done(obj, "status", None)


@steer.command()
@click.option("--max-num-seqs", type=click.IntRange(1), help="Sequences that run at the same time.")
@click.option("--max-batched-tokens", type=click.IntRange(1), help="Tokens of one iteration.")
@click.pass_obj
def limits(obj: tuple[Server, bool], max_num_seqs: int | None, max_batched_tokens: int | None) -> None:
    """Change the batch size. No request is dropped."""
    wanted = {"max_num_seqs": max_num_seqs, "max_batched_tokens": max_batched_tokens}
    _done(obj, "limits", {name: value for name, value in wanted.items() if value is not None})


@steer.command()
@click.argument("name")
@click.pass_obj
def model(obj: tuple[Server, bool], name: str) -> None:
    """Switch to the model NAME: new requests go to it when it is ready, running ones end on the old one."""
    _done(obj, "model", {"model": name})


@steer.command()
@click.pass_obj
def sleep(obj: tuple[Server, bool]) -> None:
    """Free the device's memory when running requests have ended; new ones are answered with 503."""
    _done(obj, "sleep", {})


@steer.command()
@click.pass_obj
def wake(obj: tuple[Server, bool]) -> None:
    """Serve again."""
    _done(obj, "wake", {})


@steer.command()
@click.argument("mhz", type=click.IntRange(1), required=False)
@click.pass_obj
def clock(obj: tuple[Server, bool], mhz: int | None) -> None:
    """Lower the SM clock to MHZ; without it, give the clock back."""
    _done(obj, "clock", {"sm_clock_mhz": mhz})


@steer.command()
@click.pass_obj
def drain(obj: tuple[Server, bool]) -> None:
    """Refuse new requests from now on; the server goes on until its job ends."""
    _done(obj, "drain", {})


def _client(job: str | None, unix_socket: Path | None, url: str | None, token_file: Path | None) -> httpx.Client:
    """Through the socket where there is one on this node, else over HTTP."""
    if url is None and unix_socket is None:
        found = find_endpoint(job, endpoint_folder(os.environ))
        if found.is_here and Path(found.unix_socket).is_socket():
            unix_socket = Path(found.unix_socket)
        else:
            url, token_file = found.url, token_file or Path(found.token_file)
    if unix_socket is not None:
        transport = httpx.HTTPTransport(uds=str(unix_socket))
        return httpx.Client(base_url="http://server", transport=transport, timeout=_TIMEOUT_S)
    if url is None or token_file is None:
        raise ConfigError("--url needs --token-file")
    headers = {"Authorization": f"Bearer {read_token(token_file)}"}
    return httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT_S)


def _ask(client: httpx.Client, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
    try:
        with client:
            response = client.get(f"/admin/{path}") if body is None else client.post(f"/admin/{path}", json=body)
            content: dict[str, Any] = response.json()
    except httpx.HTTPError as cause:
        raise RankLost(f"{client.base_url} does not answer: {cause}") from cause
    except ValueError as cause:
        raise RankLost(f"this is no slurm-power-serve: {cause}") from cause
    if response.status_code != 200:
        raise Refused(str(content.get("error", {}).get("message", response.text)))
    return content


def _done(obj: tuple[Server, bool], path: str, body: dict[str, Any] | None) -> None:
    ask, as_json = obj
    content = ask(path, body)
    if as_json:
        click.echo(json.dumps(content, indent=2))
    else:
        _print(content)


def _print(status: dict[str, Any]) -> None:
    console = Console(highlight=False)
    steered = status["last_steered"]
    names = dict.fromkeys((status["active"], status["public_name"]))
    head = f"{' as '.join(names)}: {status['tokens_per_s']:.1f} tokens/s"
    joules, watts = status["joules_per_token"], status["watts"]
    head += f", {joules:.2f} J/token" if joules is not None else ", joules unknown"
    head += f", {watts:.0f} W" if watts is not None else ""
    console.print(head + (", draining" if status["draining"] else ""), markup=False)
    limits = status["limits"]
    console.print(
        f"at most {limits['max_num_seqs']} sequences, {limits['max_batched_tokens']} tokens an iteration, "
        f"{limits['max_waiting']} waiting; SM clock {status['sm_clock_mhz'] or 'free'}"
    )
    if steered is not None:
        took = "no iteration since" if steered["effect_s"] is None else f"in force after {steered['effect_s']:.3f} s"
        console.print(f"last change: {steered['what']}, {took}", markup=False)
    models = Table("model", "state", "running", "waiting", "blocks held / all", "waste")
    for view in status["models"]:
        blocks = f"{view['blocks_held']} / {view['blocks_total']}" if view["blocks_total"] else "-"
        row = (view["name"], view["state"], view["running"], view["waiting"], blocks)
        models.add_row(*(str(cell) for cell in row), f"{view['waste_fraction']:.1%}")
    console.print(models)
    classes = Table("class", "running", "waiting", "slack", "first token p50, p99", "between tokens p50, p99")
    for name, view in status["classes"].items():
        first, between = view["first_token"], view["between_tokens"]
        classes.add_row(
            name,
            str(view["running"]),
            str(view["waiting"]),
            _ms(view["least_slack_s"]),
            f"{_ms(first['p50_s'])}, {_ms(first['p99_s'])}",
            f"{_ms(between['p50_s'])}, {_ms(between['p99_s'])}",
        )
    console.print(classes)


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.0f} ms"
