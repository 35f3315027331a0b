"""Profiles fitted to made-up points: what made them is found again, and the error is told on points left out."""

from __future__ import annotations

import random

import pytest

from slurm_power.errors import ConfigError
from slurm_power.llm.profile import DecodeDraw
from slurm_power.llm.profile_fit import DecodePoint, Measured, PromptPoint, fit_profile
from slurm_power.llm.profile_json import parse_profile, profile_as_json

DRAW = DecodeDraw(200.0, 300.0, 1.0, 3.0)
SPEEDS = {1000: (0.6, 0.5), 1500: (0.8, 0.7), 2000: (1.0, 1.0)}


def measured(*, noise: float = 0.0, watts: bool = True) -> Measured:
    draw = random.Random(3)
    decodes = []
    for clock_mhz, (speed, share) in SPEEDS.items():
        for batch in (1, 4, 16, 64):
            for context in (128, 1024):
                seconds = (0.01 + 0.0002 * batch + 1e-8 * batch * context) / speed
                seconds *= 1.0 + noise * draw.uniform(-1.0, 1.0)
                drawn = share * DRAW.watts(batch) if watts else None
                decodes.append(DecodePoint(clock_mhz, batch, batch * context, seconds, drawn))
    prompts = [PromptPoint(tokens, 0.01 + tokens * 1e-4, 550.0) for tokens in (64, 256, 1024)]
    return Measured(
        name="made-up", origin="made up", gpus=1, gpus_per_server=4, decodes=decodes, prompts=prompts, idle_watts=70.0,
        cache_tokens=100_000, startup_s=20.0,
    )  # fmt: skip


def test_what_made_the_points_is_found_again() -> None:
    shard = fit_profile(measured()).shard(1)
    assert shard.clocks_mhz == (1000, 1500, 2000)
    assert shard.clock.speed_fraction(1000) == pytest.approx(0.6, rel=0.01)
    assert shard.clock.watts_fraction(1500) == pytest.approx(0.7, rel=0.01)
    assert shard.decode.base_s == pytest.approx(0.01, rel=0.02)
    assert shard.decode.per_sequence_s == pytest.approx(0.0002, rel=0.05)
    assert shard.decode_draw.watts(16) == pytest.approx(DRAW.watts(16), rel=0.03)
    assert shard.prompt_s(512) == pytest.approx(0.0612, rel=0.01)


def test_the_error_is_that_of_points_that_were_left_out() -> None:
    exact, noisy = fit_profile(measured()), fit_profile(measured(noise=0.3))
    assert exact.fit_error_fraction["decode_s_held_out"] < 0.01
    assert 0.05 < noisy.fit_error_fraction["decode_s_held_out"] < 0.5


def test_a_fitted_profile_passes_its_own_checks_also_without_a_power_counter() -> None:
    for points in (measured(noise=0.3), measured(watts=False)):
        profile = fit_profile(points)
        assert parse_profile(profile_as_json(profile), where="fitted") == profile


def test_too_few_prompts_are_refused() -> None:
    points = measured()
    with pytest.raises(ConfigError, match="at least two lengths"):
        fit_profile(Measured(**{name: getattr(points, name) for name in points.__slots__} | {"prompts": []}))  # type: ignore[arg-type]
