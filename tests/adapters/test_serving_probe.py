"""The profiler's probe against a stub instance: iterations are counted while all run, refusals are told."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from slurm_power.adapters.serving_instance_http import HttpServingInstance
from slurm_power.adapters.serving_probe import ServingProbe
from slurm_power.errors import NotPermitted, Unavailable
from slurm_power.testing.stub_instance import StubBehaviour, StubInstance


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60.0))


async def probe_of(stub: StubInstance, folder: Path, token: str = "stub-token") -> ServingProbe:
    await stub.start()
    (folder / "token").write_text(token)
    return ServingProbe(stub.url, HttpServingInstance(stub.url, folder / "token"))


def test_an_iteration_is_measured_while_all_of_a_batch_run(tmp_path: Path) -> None:
    async def test() -> None:
        stub = StubInstance(StubBehaviour(between_tokens_s=0.02))
        probe = await probe_of(stub, tmp_path)
        point = await probe.decode(clock_mhz=1000, batch=4, context_tokens=50, new_tokens=20)
        assert (point.clock_mhz, point.batch, point.context_tokens) == (1000, 4, 4 * 60)
        assert point.iteration_s > 0.018  # no faster than the stub; a busy machine is slower
        assert point.watts is None  # the stub has no counter
        assert stub.most_running == 4
        assert (await probe.prompt(100)).tokens == 100
        await probe.close()

    run(test())


def test_a_refusal_and_a_wrong_token_are_told(tmp_path: Path) -> None:
    async def test() -> None:
        refusing = await probe_of(StubInstance(StubBehaviour(refuse_status=503)), tmp_path)
        with pytest.raises(Unavailable, match="not now"):
            await refusing.decode(clock_mhz=1, batch=2, context_tokens=5, new_tokens=8)
        stranger = await probe_of(StubInstance(), tmp_path, token="other")
        with pytest.raises(NotPermitted):
            await stranger.idle_watts(for_s=0.0)

    run(test())
