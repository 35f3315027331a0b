"""A pool manager on the development cluster: small random models, emulated GPUs, epochs of seconds, not of minutes."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from slurm_power.adapters.serving_jobs_slurm import MARK
from slurm_power.demo.site_files import to_toml
from slurm_power.testing.cluster import DevCluster
from slurm_power.testing.cluster.ports import free_ports
from slurm_power.testing.nvml_emulator.emulator import EmulatedNode
from slurm_power.testing.processes import wait_for
from tests.cluster.agents import agents_on
from tests.serving.tiny_models import write_model

SERVE = Path(__file__).resolve().parents[2] / "etc" / "examples" / "serve.sbatch"
KEY = "pool-test-key-0123456789"
START_S = 120.0

# Reckoned for one emulated GPU and a tiny model on a shared core, so that a few requests a second fill an instance.
CLOCKS = (795, 1200, 1590, 1980)
PROFILE = {
    "name": "tiny-emulated",
    "origin": "made up for tests on emulated GPUs",
    "formula": "as in the profiles that come with the product",
    "fit_error_fraction": {},
    "server": {"gpus": 4, "off_watts_per_gpu": 0.0, "host_watts": 500.0, "boot_s": 1.0},
    "clock": {
        "clocks_mhz": list(CLOCKS),
        "speed_fractions": [0.48, 0.67, 0.84, 1.0],
        "watts_fractions": [0.35, 0.48, 0.68, 1.0],
    },
    "shards": [
        {
            "gpus": 1,
            "prefill_tokens": [0, 64, 256, 1024],
            "prefill_s": [0.05, 0.056, 0.075, 0.15],
            "decode_s": {"base": 0.05, "per_sequence": 0.002, "per_sequence_squared": 0.0, "per_context_token": 0.0},
            "decode_watts": {"floor": 350.0, "span": 100.0, "steepness": 1.0, "middle_log2": 2.0},
            "prefill_watts": 450.0,
            "idle_watts": 70.0,
            "cache_tokens": 8000,
            "most_sequences": 4,
            "startup_s": 20.0,
            "startup_joules": 2000.0,
        }
    ],
}


def _of_small() -> dict[str, Any]:
    """Draws half as much."""
    small: dict[str, Any] = json.loads(json.dumps(PROFILE))
    shard = small["shards"][0]
    shard["decode_watts"] = {key: 0.5 * value if key in ("floor", "span") else value
                             for key, value in shard["decode_watts"].items()}  # fmt: skip
    shard["prefill_watts"] *= 0.5
    return small


class PoolSite:
    def __init__(self, slurm: DevCluster) -> None:
        self.slurm = slurm
        self.folder = slurm.layout.jobs / "pools"
        self.folder.mkdir()
        self.large = write_model(self.folder / "large", "llama")
        self.small = write_model(self.folder / "small", "llama", seed=1, num_hidden_layers=1)
        self.endpoints = self.folder / "endpoints"
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self.config, self.log = self.folder / "pool.toml", self.folder / "pool.log"
        profile = self.folder / "profile.json"
        profile.write_text(json.dumps(PROFILE))
        small_profile = self.folder / "small_profile.json"
        small_profile.write_text(json.dumps(_of_small()))
        keys = self.folder / "keys"
        keys.touch(mode=0o600)
        keys.write_text(f"tests:{KEY}\n")
        self.tables: dict[str, dict[str, Any]] = {
            "serving_pools": {
                "owner": "test",
                "model": str(self.large),
                "small_model": str(self.small),
                "profile": str(profile),
                "small_profile": str(small_profile),
                "gpus_per_instance": 1,
                "pools": ["SS", "LL"],
                "most_instances": 4,
                "sbatch_script": str(SERVE),
                "sbatch_options": [
                    f"--output={slurm.layout.jobs}/slurm-%j.out",
                    "--cpus-per-task=1",
                    "--time=10",
                    "--gpu-power-cap=400",
                ],
                "serve_options": [
                    "--memory-gib=0.3", "--swap-gib=0.01", "--max-model-len=1024", "--max-batched-tokens=256",
                    "--max-num-seqs=4", "--drain-s=5",
                ],
                "endpoints": str(self.endpoints),
                "state_path": str(self.folder / "state.json"),
                "max_num_seqs": 4,
                "watch_period_s": 0.5,
                "instance_period_s": 1.0,
                "cluster_period_s": 20.0,
                "slot_s": 5.0,
                "drain_s": 10.0,
                "report_period_s": 0.5,
            },
            "router": {"listen_port": self.port, "api_keys_file": str(keys), "patience_s": 60.0},
            "slurm": {"slurm_conf": str(slurm.layout.slurm_conf)},
        }  # fmt: skip

    # -- processes

    def start(self, *, layers: str = "instance,queue,cluster", **pools: Any) -> None:
        tables = {**self.tables, "serving_pools": {**self.tables["serving_pools"], **pools}}
        self.config.write_text(to_toml(tables))
        argv = [sys.executable, "-m", "slurm_power.cli.pool", "--config", str(self.config), "--layers", layers]
        environment = {**self.slurm.environment(), "SLURM_POWER_EMULATED_LOAD": "1", "OMP_NUM_THREADS": "1"}
        self.slurm.services.start("pool", argv, log=self.log, env=environment)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        self.slurm.services.signal("pool", number)
        assert self.slurm.services.wait_until_gone("pool", timeout_s=30.0)

    # -- what it says

    def view(self) -> dict[str, Any]:
        """Empty while nobody answers."""
        try:
            answer = httpx.get(f"{self.url}/router/status", headers=HEADERS, timeout=10.0, trust_env=False)
            found: dict[str, Any] = answer.json()
        except (httpx.HTTPError, ValueError):
            return {}
        return found

    def instances(self) -> list[dict[str, Any]]:
        view = self.view()
        return list(view["pools"]["instances"]) if view else []

    def serving(self) -> list[int]:
        return [one["job_id"] for one in self.instances() if one["accepts"]]

    def wait(self, condition: Callable[[], bool], *, timeout_s: float = START_S) -> None:
        ended = lambda: condition() or not self.slurm.services.is_running("pool")  # noqa: E731
        wait_for(ended, timeout_s=timeout_s, poll_s=0.2)
        outputs = [path.read_text()[-500:] for path in self.slurm.layout.jobs.glob("slurm-*.out")]
        said = f"{json.dumps(self.view(), indent=1)}\n{self.log.read_text()[-3000:]}\n{outputs}"
        assert condition(), said

    def jobs(self) -> dict[int, str]:
        """Of this owner, that live, by number."""
        done = self.slurm.run("squeue", "--noheader", "--format=%A %T %j")
        rows = (line.split() for line in done.stdout.splitlines())
        return {int(job): state for job, state, name in rows if name.startswith(f"{MARK}.test.")}

    def locks(self) -> list[int | None]:
        """Clock locks of all GPUs of all nodes, as the emulated boards have them."""
        found = []
        for name in self.slurm.node_names():
            with EmulatedNode.open(self.slurm.gpu_state(name)) as node:
                found += [node.locked_clock_mhz(uuid) for uuid in node.gpu_uuids()]
        return found


HEADERS = {"Authorization": f"Bearer {KEY}"}


@contextmanager
def pool_site(slurm: DevCluster) -> Iterator[PoolSite]:
    with agents_on(slurm, slurm.node_names()), pools_beside_agents(slurm) as site:
        yield site


@contextmanager
def pools_beside_agents(slurm: DevCluster) -> Iterator[PoolSite]:
    """Where agents run already."""
    site = PoolSite(slurm)
    try:
        yield site
    finally:
        slurm.services.stop("pool")
        slurm.cancel_everything()
        shutil.rmtree(site.folder)


Arrivals = Sequence[tuple[float, int, int]]
"""(at_s, prompt tokens, new tokens) of each request."""


def load(seconds: float, per_s: float, *, prompt: int = 60, new: int = 16) -> Arrivals:
    return [(number / per_s, prompt, new) for number in range(int(seconds * per_s))]


@dataclass(frozen=True)
class Asked:
    status: int  # 0: the connection broke
    first_token_s: float
    joules: float | None
    tokens: int


class Client:
    """Sends its requests beside the test."""

    def __init__(self, url: str, arrivals: Arrivals) -> None:
        self.answers: list[Asked] = []
        self._thread = threading.Thread(target=self._run, args=(url, arrivals))
        self._thread.start()

    def _run(self, url: str, arrivals: Arrivals) -> None:
        self.answers = asyncio.run(replay(url, arrivals))

    def wait(self) -> list[Asked]:
        self._thread.join(180.0)
        return self.answers


async def replay(url: str, arrivals: Arrivals, *, seed: int = 1) -> list[Asked]:
    """Streams each at its time."""
    draw = random.Random(seed)
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=url, headers=HEADERS, timeout=120.0, trust_env=False, limits=limits
    ) as client:
        loop = asyncio.get_running_loop()
        begin_s = loop.time()

        async def one(at_s: float, prompt: int, new: int) -> Asked:
            await asyncio.sleep(max(0.0, begin_s + at_s - loop.time()))
            tokens = [draw.randrange(5, 500) for _ in range(prompt)]
            return await _ask(client, tokens, new)

        return list(await asyncio.gather(*(one(*each) for each in arrivals)))


async def _ask(client: httpx.AsyncClient, prompt: list[int], new: int) -> Asked:
    loop = asyncio.get_running_loop()
    sent_s, first_s, text = loop.time(), float("nan"), ""
    body = {
        "prompt": prompt, "max_tokens": new, "temperature": 0, "ignore_eos": True, "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    try:
        async with client.stream("POST", "/v1/completions", json=body) as answer:
            async for part in answer.aiter_text():
                if not text:
                    first_s = loop.time() - sent_s
                text += part
            status = answer.status_code if '"code": 502' not in text else 502
    except httpx.HTTPError:
        return Asked(0, first_s, None, 0)
    events = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
    usage = next((json.loads(event)["usage"] for event in reversed(events) if '"usage"' in event), None)
    joules = None if usage is None else usage["energy_joules"]
    return Asked(status, first_s, joules, 0 if usage is None else usage["completion_tokens"])
