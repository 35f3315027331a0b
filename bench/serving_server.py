"""slurm-power-serve as a user starts it, in a process of its own, and what its /proc entry says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from bench.serving_model import THREADS
from slurm_power.testing.nvml_emulator.emulator import ENVIRONMENT, EmulatedNode, build_library

START_S = 180.0


@dataclass(frozen=True, slots=True)
class Server:
    url: str
    unix_socket: str
    pid: int

    def steer(self, action: str, body: dict[str, Any]) -> dict[str, Any]:
        """Returns the status after it."""
        with httpx.Client(transport=httpx.HTTPTransport(uds=self.unix_socket), timeout=120.0) as client:
            return self._answer(client.post(f"http://serve/admin/{action}", json=body))

    def status(self) -> dict[str, Any]:
        with httpx.Client(transport=httpx.HTTPTransport(uds=self.unix_socket), timeout=120.0) as client:
            return self._answer(client.get("http://serve/admin/status"))

    def rss_bytes(self) -> int:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    @staticmethod
    def _answer(answer: httpx.Response) -> dict[str, Any]:
        answer.raise_for_status()
        content: dict[str, Any] = answer.json()
        return content


@contextmanager
def emulated_gpu(folder: Path) -> Iterator[dict[str, str]]:
    """What a server's environment needs to draw power on an emulated GPU of its own; iterations do not wait for it
    unless it is capped."""
    library, state = build_library(), folder / "gpus.state"
    with EmulatedNode.create(state, gpu_count=1, uuid_seed="bench-serving"):
        yield {
            "LD_LIBRARY_PATH": str(library),
            ENVIRONMENT: str(state),
            "SLURM_POWER_EMULATED_LOAD": "1",
            "CUDA_VISIBLE_DEVICES": "0",
        }


@contextmanager
def serving(*folders: Path, options: tuple[str, ...] = (), more: Mapping[str, str] | None = None) -> Iterator[Server]:
    """The first folder's model is active, the others can be switched to. `more`: of the environment."""
    with tempfile.TemporaryDirectory(prefix="slurm-power-bench-") as name:
        others = [word for folder in folders[1:] for word in ("--also", str(folder))]
        command = [sys.executable, "-m", "job_wrappers.serve", "run", str(folders[0]), *others, *options]
        environment = {**os.environ, "SLURM_POWER_SERVE_DIR": name, "OMP_NUM_THREADS": str(THREADS), **(more or {})}
        said = Path(name) / "said"
        with said.open("wb") as sink:
            process = subprocess.Popen(command, env=environment, stdout=sink, stderr=sink)
        try:
            yield _found(process, Path(name), said)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _found(process: subprocess.Popen[bytes], folder: Path, said: Path) -> Server:
    until_s = time.monotonic() + START_S
    while time.monotonic() < until_s and process.poll() is None:
        for path in folder.glob("*.json"):
            endpoint = json.loads(path.read_text())
            server = Server(endpoint["url"], endpoint["unix_socket"], process.pid)
            if _healthy(server):
                return server
        time.sleep(0.1)
    raise RuntimeError(f"the server did not start: {said.read_text(errors='replace')[-2000:]}")


def _healthy(server: Server) -> bool:
    try:
        return httpx.get(f"{server.url}/health", timeout=10.0).status_code == 200
    except httpx.TransportError:
        return False
