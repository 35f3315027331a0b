"""A server in this process: a real engine on its own thread, real HTTP on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job_wrappers.serving.engine.config import EngineConfig, EnginePorts, ModelSpec
from job_wrappers.serving.engine.host import EngineHost
from job_wrappers.serving.engine.offline import one_rank_host
from tests.serving.http_server import TOKEN, http_server

__all__ = ["TOKEN", "Served", "served"]

MIB = 1024 * 1024


@dataclass(frozen=True)
class Served:
    host: EngineHost
    url: str


@contextmanager
def served(*folders: Path, ports: EnginePorts | None = None, **settings: Any) -> Iterator[Served]:
    values: dict[str, Any] = {
        "models": tuple(ModelSpec(name=name, path=folder) for name, folder in zip("ms", folders, strict=False)),
        "public_name": "chat",
        "memory_bytes": 128 * MIB,
        "swap_bytes": 4 * MIB,
        "max_model_len": 256,
        "max_num_seqs": 8,
        "max_batched_tokens": 128,
        "check_invariants": True,
    }
    host = one_rank_host(EngineConfig(**(values | settings)), ports)
    host.start(on_crash=lambda text: None)
    try:
        with http_server(host) as url:
            yield Served(host, url)
    finally:
        host.stop()
