"""A real InfluxDB of Debian (1.6.7) in a directory of its own, behind an nginx that gives it the newer write address.

influxdb-client writes to /api/v2/write, which 1.6 does not know; nginx maps it to /write. No authentication.
"""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from types import TracebackType

import httpx

from slurm_power.errors import ConfigError, Unavailable
from slurm_power.testing.processes import Supervisor, wait_for

_START_TIMEOUT_S = 30.0

_INFLUXD_CONF = """
reporting-disabled = true
bind-address = "127.0.0.1:{rpc_port}"
[meta]
dir = "{directory}/meta"
[data]
dir = "{directory}/data"
wal-dir = "{directory}/wal"
query-log-enabled = false
[monitor]
store-enabled = false
[http]
bind-address = "127.0.0.1:{http_port}"
log-enabled = false
"""

_NGINX_CONF = """
{user_line}
worker_processes 1;
daemon off;
pid {directory}/nginx.own-pid;
error_log {directory}/nginx.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_max_body_size 100m;
    client_body_temp_path {directory}/nginx-body;
    proxy_temp_path {directory}/nginx-proxy;
    fastcgi_temp_path {directory}/nginx-fastcgi;
    uwsgi_temp_path {directory}/nginx-uwsgi;
    scgi_temp_path {directory}/nginx-scgi;
    map $arg_precision $v1_precision {{ default n; us u; ms ms; s s; }}
    map $arg_bucket $v1_database {{ default $arg_bucket; }}
    server {{
        listen 127.0.0.1:{front_port};
        location = /api/v2/write {{
            rewrite ^ /write?db=$v1_database&precision=$v1_precision? break;
            proxy_pass http://127.0.0.1:{http_port};
        }}
        location / {{ proxy_pass http://127.0.0.1:{http_port}; }}
    }}
}}
"""


class InfluxDbServer:
    """`with InfluxDbServer(directory) as server: ... server.url`. Its ports stay the same over stop and start."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory.absolute()
        self._processes = Supervisor(self._directory / "run")

    def __enter__(self) -> InfluxDbServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Of the front, which answers both the client's writes and InfluxQL."""
        return f"http://127.0.0.1:{self._ports()[2]}"

    def start(self) -> None:
        """Idempotent. Raise ConfigError when a program is not installed, Unavailable when it does not come up."""
        for program in ("influxd", "nginx"):
            if find_program(program) is None:
                raise ConfigError(f"{program} is not installed; apt-get install influxdb nginx-light")
        self._write_configs()
        log, conf = self._directory / "influxd.log", self._directory / "influxd.conf"
        self._processes.start("influxd", [str(find_program("influxd")), "-config", str(conf)], log=log)
        front = ["-c", str(self._directory / "nginx.conf"), "-e", str(self._directory / "nginx.log")]
        self._processes.start("nginx", [str(find_program("nginx")), *front], log=self._directory / "nginx.out")
        if not wait_for(self.answers, timeout_s=_START_TIMEOUT_S):
            raise Unavailable(f"InfluxDB does not answer at {self.url}; see {log} and {self._directory / 'nginx.log'}")

    def create_database(self, name: str) -> None:
        answer = httpx.post(f"{self.url}/query", data={"q": f'CREATE DATABASE "{name}"'}, trust_env=False)
        answer.raise_for_status()

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/ping", timeout=2.0, trust_env=False).status_code == httpx.codes.NO_CONTENT
        except httpx.HTTPError:
            return False

    def stop_database(self) -> None:
        """The outage that a client sees as 502 from the front."""
        self._processes.stop("influxd")

    def stop_front(self) -> None:
        """The outage that a client sees as a refused connection."""
        self._processes.stop("nginx")

    def stop(self) -> None:
        self._processes.stop_all()

    def _write_configs(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        http_port, rpc_port, front_port = self._ports()
        values = {
            "directory": self._directory,
            "http_port": http_port,
            "rpc_port": rpc_port,
            "front_port": front_port,
            "user_line": "user root;" if os.geteuid() == 0 else "",
        }
        (self._directory / "influxd.conf").write_text(_INFLUXD_CONF.format(**values))
        (self._directory / "nginx.conf").write_text(_NGINX_CONF.format(**values))

    def _ports(self) -> tuple[int, int, int]:
        """Chosen once and kept in a file, so that a restart, also by another process, keeps the address."""
        file = self._directory / "ports"
        if not file.exists():
            self._directory.mkdir(parents=True, exist_ok=True)
            file.write_text(" ".join(map(str, _free_ports(3))))
        http_port, rpc_port, front_port = map(int, file.read_text().split())
        return http_port, rpc_port, front_port


def find_program(name: str) -> str | None:
    """Debian keeps nginx in /usr/sbin, which is not on every user's PATH."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
