"""A PDU's input power over SNMP v2c or v3 (snmp_pdus.py says of which PDUs, and where they keep it).

A PDU only draws: what it says is import, and a value below zero is not believed.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gufo.snmp import (
    Aes128Key,
    Aes192Key,
    Aes256Key,
    BaseAuthKey,
    BasePrivKey,
    DesKey,
    Md5Key,
    Sha1Key,
    Sha224Key,
    Sha256Key,
    Sha384Key,
    Sha512Key,
    SnmpAuthError,
    SnmpError,
    User,
)
from gufo.snmp.aio import SnmpSession

from slurm_power.adapters.deadline_loop import DeadlineLoop
from slurm_power.adapters.secret_file import read_secret
from slurm_power.adapters.snmp_pdus import PDUS
from slurm_power.errors import ConfigError, Unavailable, require
from slurm_power.monitoring.readings import GridReading
from slurm_power.ports.clock import Clock

AUTH_KEYS: Mapping[str, type[BaseAuthKey]] = {
    "md5": Md5Key,
    "sha1": Sha1Key,
    "sha224": Sha224Key,
    "sha256": Sha256Key,
    "sha384": Sha384Key,
    "sha512": Sha512Key,
}
PRIV_KEYS: Mapping[str, type[BasePrivKey]] = {
    "des": DesKey,
    "aes128": Aes128Key,
    "aes192": Aes192Key,
    "aes256": Aes256Key,
}
RUST_PANIC = "pyo3_runtime"  # module of the panic's class, which cannot be imported
SHORTEST_KEY = 8  # characters of a password: RFC 3414, 11.2


@dataclass(frozen=True, slots=True, kw_only=True)
class SnmpMeterConfig:
    """The `[meter]` table of kind "snmp", or one of `[parts]`."""

    kind: Literal["snmp"] = "snmp"
    device: Literal["apc_rpdu2", "raritan_px2"]
    host: str
    port: int = 161
    timeout_s: float = 2.0
    """Longest time one reading may take, all its requests included."""

    max_watts: float
    """Its breaker's rating: a reading above is not believed. No default: only the site knows it."""

    pdu: int = 1
    """Which PDU of a chain: rPDU2's or PDU2's index."""

    inlet: int = 1
    """Raritan: which inlet of it."""

    community_file: Path | None = None
    """SNMP v2c: file whose first line is the community. None: SNMP v3 with the keys below."""

    user: str = ""
    """SNMP v3, always with authentication and privacy."""

    auth: Literal["md5", "sha1", "sha224", "sha256", "sha384", "sha512"] = "sha256"
    auth_key_file: Path | None = None
    """File whose first line is the authentication password."""

    priv: Literal["des", "aes128", "aes192", "aes256"] = "aes128"
    priv_key_file: Path | None = None
    """File whose first line is the privacy password."""

    def __post_init__(self) -> None:
        require(bool(self.host), "host", repr(self.host), "must name the PDU")
        require(1 <= self.port <= 65_535, "port", self.port, "must be in 1..65535")
        require(self.timeout_s > 0, "timeout_s", self.timeout_s, "must be above 0")
        require(self.max_watts > 0, "max_watts", self.max_watts, "must be above 0")
        require(self.pdu >= 1, "pdu", self.pdu, "counts from 1")
        require(self.inlet >= 1, "inlet", self.inlet, "counts from 1")
        if self.community_file is not None:
            require(not self.user, "user", self.user, "is SNMP v3's, but community_file asks for v2c")
            return
        require(bool(self.user), "user", repr(self.user), "SNMP v3 needs it (or v2c a community_file)")
        for key in ("auth_key_file", "priv_key_file"):
            require(getattr(self, key) is not None, key, None, "SNMP v3 is used with authentication and privacy only")


class SnmpMeter:
    def __init__(self, config: SnmpMeterConfig, *, clock: Clock, name: str = "meter") -> None:
        """Raise ConfigError for a secret's file that cannot be read or that anybody may read."""
        self._config, self._clock = config, clock
        self._name = f"{name} {config.host}:{config.port}"
        self._community = (
            "" if config.community_file is None else read_secret(config.community_file, key="community_file")
        )
        self._user = None if config.community_file is not None else _user(config)
        self._pdu = PDUS[config.device](config.pdu, config.inlet)
        self._loop = DeadlineLoop()

    def read(self) -> GridReading:
        taken_at_s = self._clock.now_s()  # before asking: a reading is never younger than it says
        try:
            answer = self._loop.run(self._ask(), timeout_s=self._config.timeout_s)
            watts = self._pdu.watts(answer)
        except TimeoutError as cause:
            raise self._unavailable(
                f"does not answer within {self._config.timeout_s:g} s; check host and {self._secret()}"
            ) from cause
        except SnmpAuthError as cause:
            raise self._unavailable(f"refuses the {self._secret()}: {_said(cause)}") from cause
        except (SnmpError, OSError) as cause:
            raise self._unavailable(_said(cause)) from cause
        except Unavailable as cause:
            raise self._unavailable(str(cause)) from cause
        if not 0 <= watts <= self._config.max_watts:
            raise self._unavailable(f"{watts:.0f} W is outside 0 to {self._config.max_watts:.0f} W (max_watts)")
        return GridReading(import_watts=watts, export_watts=0.0, taken_at_s=taken_at_s)

    def close(self) -> None:
        self._loop.close()

    async def _ask(self) -> Mapping[str, object]:
        """All that one reading needs in one request, so that a value and its scale belong together. A session of its
        own each time: no late answer meets it, and a device that restarted (v3: with another clock) is met anew."""
        session = await self._open()
        try:
            await session.refresh()  # v3: learns the device's engine and clock; v2c: nothing
            return await session.get_many(self._pdu.oids)
        except BaseException as cause:
            # gufo-snmp's Rust panics on some malformed packets, and that is no Exception to Python: it would end us.
            if type(cause).__module__ != RUST_PANIC:
                raise
            raise Unavailable("sends what is no SNMP message") from cause

    async def _open(self) -> SnmpSession:
        config = self._config
        found = await asyncio.get_running_loop().getaddrinfo(config.host, config.port, type=socket.SOCK_DGRAM)
        address, timeout_s = str(found[0][4][0]), config.timeout_s
        if self._user is not None:
            return SnmpSession(address, config.port, user=self._user, timeout=timeout_s)
        return SnmpSession(address, config.port, community=self._community, timeout=timeout_s)

    def _secret(self) -> str:
        return "community" if self._user is None else f"keys of user {self._user.name}"

    def _unavailable(self, reason: str) -> Unavailable:
        return Unavailable(f"{self._name}: {reason}")


def _user(config: SnmpMeterConfig) -> User:
    assert config.auth_key_file is not None, "SnmpMeterConfig checks it"
    assert config.priv_key_file is not None, "SnmpMeterConfig checks it"
    auth_key = _key(config.auth_key_file, "auth_key_file")
    priv_key = _key(config.priv_key_file, "priv_key_file")
    return User(config.user, auth_key=AUTH_KEYS[config.auth](auth_key), priv_key=PRIV_KEYS[config.priv](priv_key))


def _key(path: Path, key: str) -> bytes:
    secret = read_secret(path, key=key).encode()
    if len(secret) < SHORTEST_KEY:
        raise ConfigError(f"{key} = {path}: SNMP v3 passwords have {SHORTEST_KEY} characters or more")
    return secret


def _said(cause: Exception) -> str:
    return str(cause) or type(cause).__name__
