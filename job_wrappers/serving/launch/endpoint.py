"""Where a server can be found: one JSON file for each, readable by its owner, gone when the server ends.

The files lie in the user's home, which all nodes of a cluster see; Unix sockets on the node itself.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from job_wrappers.serving.errors import ConfigError

FOLDER_VARIABLE = "SLURM_POWER_SERVE_DIR"
_TOKEN_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    name: str
    """See `server_name`."""

    url: str
    unix_socket: str
    token_file: str
    """Of steering over HTTP, from other nodes."""

    node: str
    pid: int
    models: tuple[str, ...]
    public_name: str
    started_unix_s: float

    @property
    def is_here(self) -> bool:
        return self.node == socket.gethostname()


def server_name(environ: Mapping[str, str]) -> str:
    """The job's number (with the step's, but for the first), or the process's where there is no job."""
    if "SLURM_JOB_ID" not in environ:
        return f"pid-{os.getpid()}"
    step = environ.get("SLURM_STEP_ID", "0")
    return environ["SLURM_JOB_ID"] + (f".{step}" if step.isdigit() and step != "0" else "")


def endpoint_folder(environ: Mapping[str, str]) -> Path:
    if FOLDER_VARIABLE in environ:
        return Path(environ[FOLDER_VARIABLE]).absolute()
    state = environ.get("XDG_STATE_HOME") or (Path(environ.get("HOME", "/nowhere")) / ".local" / "state")
    return Path(state) / "slurm-power-serve"


def socket_folder() -> Path:
    """On this node: a shared file system may not hold sockets, and their paths must be short."""
    return Path(tempfile.gettempdir()) / f"slurm-power-serve-{os.getuid()}"


def prepare_folder(folder: Path) -> None:
    """Raise ConfigError if it belongs to somebody else: he could put a false socket in it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.lstat().st_uid
    except OSError as cause:
        raise ConfigError(f"{folder}: {cause.strerror}; set {FOLDER_VARIABLE}") from cause
    if owner != os.getuid():
        raise ConfigError(f"{folder}: belongs to user {owner}; set {FOLDER_VARIABLE} and --unix-socket")


def read_token(path: Path) -> str:
    """Raise ConfigError for a file that others can read, or an empty one."""
    try:
        mode, token = path.stat().st_mode, path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as cause:
        raise ConfigError(f"token file {path}: {getattr(cause, 'strerror', cause)}") from cause
    if mode & 0o077:
        raise ConfigError(f"token file {path}: others may read it; chmod 600")
    if not token:
        raise ConfigError(f"token file {path}: is empty")
    return token


@contextmanager
def own_token(given: Path | None, folder: Path, name: str) -> Iterator[Path]:
    """The file with the token: the given one, or a new one beside the endpoint, gone with the server."""
    if given is not None:
        yield given.absolute()
        return
    path = folder / f"{name}.token"
    _write(path, secrets.token_urlsafe(_TOKEN_BYTES) + "\n")
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def registered(endpoint: Endpoint, folder: Path) -> Iterator[Path]:
    _sweep(folder)
    path = folder / f"{endpoint.name}.json"
    _write(path, json.dumps(asdict(endpoint), indent=2) + "\n")
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    """Take away what killed servers left."""
    for path in folder.glob("*.json"):
        try:
            dead = not _may_live(_read(path))
        except ConfigError:
            continue
        if dead:
            for left in (path, path.with_suffix(".token")):
                left.unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    """For the owner alone, and never half of it."""
    partial = path.with_name(f"{path.name}.new.{os.getpid()}")
    try:
        partial.touch(mode=0o600)
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as cause:
        raise ConfigError(f"{path}: {cause.strerror}; set {FOLDER_VARIABLE}") from cause


def find_endpoint(name: str | None, folder: Path) -> Endpoint:
    """The named one, or the only one that lives. Raise ConfigError that lists what there is."""
    paths = sorted(folder.glob("*.json")) if folder.is_dir() else []
    if name is not None:
        paths = [path for path in paths if path.stem == name] or paths
    found = [endpoint for endpoint in map(_read, paths) if name == endpoint.name or _may_live(endpoint)]
    if len(found) == 1 and name in (None, found[0].name):
        return found[0]
    there = ", ".join(f"{each.name} ({each.public_name} on {each.node})" for each in found) or "none"
    raise ConfigError(f"which server? {folder} knows {there}; name one with --job, --url or --unix-socket")


def _read(path: Path) -> Endpoint:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return Endpoint(**{**raw, "models": tuple(raw["models"])})
    except (OSError, ValueError, TypeError, KeyError) as cause:
        raise ConfigError(f"{path}: cannot be read: {cause}") from cause


def _may_live(endpoint: Endpoint) -> bool:
    """False only for what a killed server left behind on this node."""
    if not endpoint.is_here:
        return True
    try:
        os.kill(endpoint.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
