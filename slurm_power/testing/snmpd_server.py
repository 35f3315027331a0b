"""Debian's real snmpd with a configuration of its own; what it serves of a PDU stands in a file that may change."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from slurm_power.errors import ConfigError, Unavailable
from slurm_power.testing.processes import Supervisor, wait_for

PDU_ROOTS = (".1.3.6.1.4.1.318", ".1.3.6.1.4.1.13742")  # APC, Raritan

_START_TIMEOUT_S = 30.0
_TRIES = 3  # another process may take the port between our look and snmpd's

# snmpd.conf(5), pass_persist: answers each request from the file that holds now. SET and GETNEXT are not served.
_RESPONDER = """#!/bin/sh
while read -r command; do
    case "$command" in
        PING) echo PONG ;;
        get)
            read -r oid
            awk -v oid="$oid" '$1 == oid { print $1 "\\n" $2 "\\n" $3; hit = 1 } END { if (!hit) print "NONE" }' "$1" ;;
        getnext) read -r oid; echo NONE ;;
        set) read -r oid; read -r value; echo not-writable ;;
    esac
done
"""


Values = Mapping[str, tuple[str, object]]
"""OID -> type (integer, gauge, string, ...) and value."""


def apc_says(watts: float, *, pdu: int = 1) -> Values:
    """rPDU2DeviceStatusPower."""
    return {f"1.3.6.1.4.1.318.1.1.26.4.3.1.5.{pdu}": ("integer", round(watts / 10.0))}


def raritan_says(
    watts: float, *, pdu: int = 1, inlet: int = 1, digits: int = 1, unit: int = 3, available: int = 1
) -> Values:
    """PDU2-MIB: an inlet's active power as a PX2 serves it; unit 3 is the watt."""
    base, index = "1.3.6.1.4.1.13742.6", f"{pdu}.{inlet}.5"
    return {
        f"{base}.5.2.3.1.2.{index}": ("integer", available),
        f"{base}.5.2.3.1.4.{index}": ("integer", round(watts * 10**digits)),
        f"{base}.3.3.4.1.6.{index}": ("integer", unit),
        f"{base}.3.3.4.1.7.{index}": ("gauge", digits),
    }


class SnmpdServer:
    """`with SnmpdServer(directory, ["rocommunity secret"]) as server: server.serve(apc_says(500.0))`."""

    def __init__(self, directory: Path, access: Sequence[str], *, roots: Sequence[str] = PDU_ROOTS) -> None:
        """`access`: lines of snmpd.conf(5) that say who may read (rocommunity; createUser and rouser)."""
        self._directory = directory.absolute()
        self._access, self._roots = access, roots
        self._processes = Supervisor(self._directory / "run")
        self.host, self.port = "127.0.0.1", 0

    def __enter__(self) -> SnmpdServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def serve(self, values: Values) -> None:
        """From now on; an OID that is not among them does not exist."""
        lines = [f".{oid} {kind} {value}\n" for oid, (kind, value) in values.items()]
        fresh = self._directory / "values.new"
        fresh.write_text("".join(lines))
        fresh.replace(self._directory / "values")

    def silence(self, silent: bool) -> None:
        """Stop it in its tracks, or let it go on: it then answers late what it was asked meanwhile."""
        self._processes.signal("snmpd", signal.SIGSTOP if silent else signal.SIGCONT)

    def start(self) -> None:
        """Raise ConfigError when snmpd is not installed, Unavailable when it does not come up."""
        if find_snmpd() is None:
            raise ConfigError("snmpd is not installed; apt-get install snmpd")
        for _ in range(_TRIES):
            self.port = _free_udp_port()
            if self._comes_up():
                return
            self.stop()
        raise Unavailable(f"snmpd does not start; see {self._log}")

    def restart(self) -> None:
        """On the same port, as a device does that was reset."""
        self.stop()
        if not self._comes_up():
            raise Unavailable(f"snmpd does not start again; see {self._log}")

    def stop(self) -> None:
        self.silence(False)  # a stopped process takes no other signal
        self._processes.stop_all()

    def _comes_up(self) -> bool:
        self._write_files()
        self._log.unlink(missing_ok=True)
        argv = [str(find_snmpd()), "-f", "-Lo", "-C", "-c", str(self._directory / "snmpd.conf"), "-I", "-smux"]
        state = {"SNMP_PERSISTENT_DIR": str(self._directory / "state"), "SNMPCONFPATH": str(self._directory)}
        self._processes.start("snmpd", argv, log=self._log, env={**os.environ, **state})
        wait_for(lambda: self._is_up() or not self._processes.is_running("snmpd"), timeout_s=_START_TIMEOUT_S)
        return self._is_up() and self._processes.is_running("snmpd")

    def _is_up(self) -> bool:
        return self._log.exists() and "NET-SNMP version" in self._log.read_text(errors="replace")

    @property
    def _log(self) -> Path:
        return self._directory / "snmpd.log"

    def _write_files(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        responder = self._directory / "responder.sh"
        responder.write_text(_RESPONDER)
        values = self._directory / "values"
        values.touch()
        (self._directory / "snmpd.conf").write_text(
            "\n".join(
                [
                    f"agentaddress udp:{self.host}:{self.port}",
                    *self._access,
                    *(f"pass_persist {root} /bin/sh {responder} {values}" for root in self._roots),
                    "",
                ]
            )
        )


def find_snmpd() -> str | None:
    """Debian keeps it in /usr/sbin, which is not on every user's PATH."""
    return shutil.which("snmpd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
