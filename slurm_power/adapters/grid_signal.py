"""Grid events as OpenADR 3 objects: from a file that somebody else writes, or from a VTN's /events over HTTP."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from slurm_power.adapters.bounded_get import MOST_BYTES, bounded_get
from slurm_power.adapters.deadline_loop import DeadlineLoop
from slurm_power.adapters.secret_file import read_secret
from slurm_power.errors import ConfigError, Unavailable, require
from slurm_power.ess.grid_event import GridEvent, parse_events
from slurm_power.ports.grid_signal import GridSignal


@dataclass(frozen=True, slots=True, kw_only=True)
class GridSignalConfig:
    """The `[grid_signal]` table: events that ask the site to import less for a while."""

    source: str
    """A path, or the https:// address of a list of events (http:// only on this machine)."""

    token_file: Path | None = None
    """Bearer token for the address. None: it asks for none."""

    timeout_s: float = 5.0
    ramp_s: float = 0.0
    """The import falls over so long ahead of an event, and rises over so long after it."""

    ramp_from_watts: float | None = None
    """Where the ramp begins: the usual import. None: no ramp."""

    def __post_init__(self) -> None:
        require(bool(self.source), "source", self.source, "must name a file or an address")
        require(self.timeout_s > 0, "timeout_s", self.timeout_s, "must be above 0")
        require(self.ramp_s >= 0, "ramp_s", self.ramp_s, "must not be below 0")
        local = urlsplit(self.source).hostname in ("127.0.0.1", "localhost", "::1")
        require(not self.source.startswith("http://") or local, "source", self.source, "must be https:// or a path")

    @property
    def is_address(self) -> bool:
        return self.source.startswith(("https://", "http://"))


def open_grid_signal(config: GridSignalConfig) -> GridSignal:
    """Raise ConfigError for a token that cannot be read."""
    return HttpGridSignal(config) if config.is_address else FileGridSignal(config)


class FileGridSignal:
    """A file that is not there asks for nothing. Replace it as a whole (write beside it, then rename)."""

    def __init__(self, config: GridSignalConfig) -> None:
        self._config, self._path = config, Path(config.source)

    def events(self) -> Sequence[GridEvent]:
        try:
            with self._path.open("rb") as file:
                raw = file.read(MOST_BYTES + 1)
        except FileNotFoundError:
            return ()
        except OSError as cause:
            raise Unavailable(f"grid signal {self._path}: {cause.strerror}") from cause
        if len(raw) > MOST_BYTES:
            raise Unavailable(f"grid signal {self._path}: larger than {MOST_BYTES} bytes")
        return _parsed(raw, self._config, str(self._path))

    def close(self) -> None:
        return


class HttpGridSignal:
    def __init__(self, config: GridSignalConfig) -> None:
        self._config, self._loop = config, DeadlineLoop()
        self._headers = {"Accept": "application/json"}
        if config.token_file is not None:
            self._headers["Authorization"] = f"Bearer {read_secret(config.token_file, key='token_file')}"

    def events(self) -> Sequence[GridEvent]:
        address = self._config.source
        try:
            raw = self._loop.run(self._get(address), timeout_s=self._config.timeout_s)
        except TimeoutError as cause:
            seconds = f"{self._config.timeout_s:g} s"
            raise Unavailable(f"grid signal {address}: no whole answer within {seconds}") from cause
        except (httpx.HTTPError, httpx.InvalidURL) as cause:
            raise Unavailable(f"grid signal {address}: {cause or type(cause).__name__}") from cause
        except Unavailable as cause:
            raise Unavailable(f"grid signal {address}: {cause}") from cause
        return _parsed(raw, self._config, address)

    def close(self) -> None:
        self._loop.close()

    async def _get(self, address: str) -> bytes:
        async with httpx.AsyncClient(timeout=self._config.timeout_s) as client:
            return await bounded_get(client, address, headers=self._headers)


def _parsed(raw: bytes, config: GridSignalConfig, source: str) -> Sequence[GridEvent]:
    try:
        return parse_events(json.loads(raw), ramp_s=config.ramp_s, ramp_from_watts=config.ramp_from_watts)
    except (ConfigError, ValueError, RecursionError) as cause:
        raise Unavailable(f"grid signal {source}: {cause}") from cause
