"""Power of a chassis or a rack PDU over Redfish: one GET, one number (redfish_power.py says which).

What hangs on it only draws: a value below zero is not believed.
"""

from __future__ import annotations

import json
import ssl
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import httpx

from slurm_power.adapters.bounded_get import bounded_get, refuse_all_but_ok
from slurm_power.adapters.deadline_loop import DeadlineLoop
from slurm_power.adapters.redfish_power import live_watts
from slurm_power.adapters.secret_file import read_secret
from slurm_power.errors import ConfigError, Unavailable, require
from slurm_power.monitoring.readings import GridReading
from slurm_power.ports.clock import Clock

REFUSED = (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)
REFUSED_PAUSE_S = 60.0
"""BMCs lock an account after a few wrong passwords: after a refusal nothing is asked for so long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedfishMeterConfig:
    """The `[meter]` table of kind "redfish", or one of `[parts]`."""

    kind: Literal["redfish"] = "redfish"
    url: str
    """https://host[:port] of the service."""

    path: str
    """The resource: /redfish/v1/Chassis/ID/EnvironmentMetrics, .../Chassis/ID/Power or
    .../PowerEquipment/RackPDUs/ID/Metrics."""

    timeout_s: float = 2.0
    """Longest time one reading may take, connection and TLS included."""

    max_watts: float
    """Its supply's rating: a reading above is not believed. No default: only the site knows it."""

    member_id: str = ""
    """Power: MemberId of the PowerControl, where there are several."""

    user: str = ""
    password_file: Path | None = None
    """File whose first line is the password."""

    ca_file: Path | None = None
    """Certificates that may have signed the service's. None: those that the system trusts."""

    def __post_init__(self) -> None:
        require(_is_http_url(self.url), "url", repr(self.url), "must be https://host or https://host:port")
        require(self.path.startswith("/redfish/v1/"), "path", repr(self.path), "must begin with /redfish/v1/")
        require(self.timeout_s > 0, "timeout_s", self.timeout_s, "must be above 0")
        require(self.max_watts > 0, "max_watts", self.max_watts, "must be above 0")
        require(
            bool(self.user) == (self.password_file is not None),
            "user",
            repr(self.user),
            "user and password_file belong together",
        )
        require(self.url.startswith("https:") or not self.user, "url", self.url, "a password goes over https only")


class RedfishMeter:
    def __init__(self, config: RedfishMeterConfig, *, clock: Clock, name: str = "meter") -> None:
        """Raise ConfigError for a file that cannot be read, or for a password that anybody may read."""
        self._config, self._clock = config, clock
        self._name = f"{name} {config.url}{config.path}"
        self._auth = None
        if config.password_file is not None:
            self._auth = httpx.BasicAuth(config.user, read_secret(config.password_file, key="password_file"))
        self._tls = _tls(config.ca_file)
        self._loop = DeadlineLoop()
        self._client: httpx.AsyncClient | None = None
        self._refused_at_s: float | None = None

    def read(self) -> GridReading:
        taken_at_s = self._clock.now_s()  # before asking: a reading is never younger than it says
        try:
            self._let_refusal_rest(taken_at_s)
            resource = json.loads(self._loop.run(self._get(), timeout_s=self._config.timeout_s))
            watts = live_watts(resource, member_id=self._config.member_id)
        except TimeoutError as cause:
            raise self._unavailable(f"no whole answer within {self._config.timeout_s:g} s") from cause
        except (httpx.HTTPError, httpx.InvalidURL) as cause:
            raise self._unavailable(str(cause) or type(cause).__name__) from cause
        except (ValueError, RecursionError) as cause:
            raise self._unavailable(f"the answer is not JSON: {cause}") from cause
        except Unavailable as cause:
            raise self._unavailable(str(cause)) from cause
        if not 0 <= watts <= self._config.max_watts:
            raise self._unavailable(f"{watts:.0f} W is outside 0 to {self._config.max_watts:.0f} W (max_watts)")
        return GridReading(import_watts=watts, export_watts=0.0, taken_at_s=taken_at_s)

    def close(self) -> None:
        if self._client is not None:
            with suppress(TimeoutError):
                self._loop.run(self._hang_up(), timeout_s=self._config.timeout_s)
        self._loop.close()

    async def _get(self) -> bytes:
        """Once more on a new connection when the service hung up on us: BMCs do so on a connection that was idle."""
        try:
            return await self._fetch()
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
            await self._hang_up()
            return await self._fetch()

    async def _fetch(self) -> bytes:
        config = self._config
        if self._client is None:
            # trust_env off: a proxy of the environment has no part between us and a BMC.
            self._client = httpx.AsyncClient(
                verify=self._tls, auth=self._auth, timeout=config.timeout_s, trust_env=False
            )
        headers = {"Accept": "application/json"}
        return await bounded_get(self._client, config.url + config.path, headers=headers, check=self._check)

    def _check(self, status: int) -> None:
        if status in REFUSED:
            self._refused_at_s = self._clock.now_s()
            raise Unavailable(
                f"refuses user {self._config.user!r} (HTTP {status}); asked again in {REFUSED_PAUSE_S:.0f} s"
            )
        refuse_all_but_ok(status)

    def _let_refusal_rest(self, now_s: float) -> None:
        if self._refused_at_s is None:
            return
        left_s = self._refused_at_s + REFUSED_PAUSE_S - now_s
        if left_s > 0:
            raise Unavailable(f"refused user {self._config.user!r}; asked again in {left_s:.0f} s")
        self._refused_at_s = None

    async def _hang_up(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            await client.aclose()

    def _unavailable(self, reason: str) -> Unavailable:
        return Unavailable(f"{self._name}: {' '.join(reason.split())}")


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except OSError as cause:  # ssl.SSLError too
        raise ConfigError(f"ca_file = {ca_file}: {cause}") from cause


def _is_http_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        bare = not parts.path and not parts.query and parts.username is None and parts.port != 0
        return parts.scheme in ("http", "https") and bool(parts.hostname) and bare
    except ValueError:
        return False
