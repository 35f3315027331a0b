"""Sealed blocks: what goes in comes out, what was changed does not."""

from __future__ import annotations

import base64
import math
import random
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_power.sla.sample import CAP_SOURCES, COLUMNS, GpuMoment
from slurm_power.sla.samples import OpenBlock, Samples, from_moments, opened, unsealed
from slurm_power.sla.seal import LAYOUT, MAX_MOMENTS, SealedBlock, Sealer, sealed
from tests.sla.made_up import BEGIN_S, busy


def fields(block: SealedBlock) -> dict[str, object]:
    return {"layout": LAYOUT, "samples": block.samples, "columns": block.columns, "sha256": block.sha256}


def open_block(block: SealedBlock) -> OpenBlock:
    found = opened(block.begin_wall_s, fields(block))
    assert found is not None
    return found


def same(one: Samples, other: Samples) -> bool:
    return one.rows() == other.rows()


numbers = st.none() | st.floats(min_value=0, max_value=1e4, width=32)
moments = st.builds(
    GpuMoment,
    wall_s=st.just(0.0),
    sm_clock_mhz=numbers,
    temperature_celsius=numbers,
    thermal_margin_celsius=st.none() | st.floats(-50, 100, width=32),
    utilisation_fraction=st.none() | st.floats(0, 1, width=32),
    draw_watts=numbers,
    cap_watts=numbers,
    locked_clock_mhz=numbers,
    power_violation_s=st.none() | st.floats(0, 1e9),
    thermal_violation_s=st.none() | st.floats(0, 1e9),
    throttle_reasons=st.none() | st.integers(0, 2**32),
    cap_source=st.none() | st.sampled_from(CAP_SOURCES),
)


@given(
    st.lists(moments, min_size=1, max_size=40),
    st.lists(st.floats(0.002, 30), min_size=40, max_size=40),
    st.floats(1.7e9, 1.9e9),
)
def test_every_reading_comes_out_as_it_went_in(found: list[GpuMoment], steps: list[float], begin_s: float) -> None:
    at_s, timed = begin_s, []
    for moment, step_s in zip(found, steps, strict=False):
        timed.append(replace(moment, wall_s=round(at_s, 6)))
        at_s += step_s
    block = open_block(sealed(timed))
    assert same(unsealed([block]), from_moments(timed))
    assert block.end_ms == int(from_moments(timed).wall_ms[-1])


def test_blocks_of_different_sizes_join_in_order_of_time() -> None:
    all_of_them = [busy(second) for second in range(50)]
    blocks = [open_block(sealed(all_of_them[begin:end])) for begin, end in ((20, 50), (0, 10), (10, 20))]
    assert same(unsealed(blocks), from_moments(all_of_them))


def test_unknown_stays_unknown() -> None:
    samples = unsealed([open_block(sealed([GpuMoment(BEGIN_S)]))])
    for name in COLUMNS:
        value = samples[name][0]
        assert math.isnan(value) or value == -1


def test_a_week_of_readings_needs_a_tenth_of_their_points() -> None:
    block = sealed([busy(second, draw_watts=610.0 + second % 7) for second in range(300)])
    assert len(block.columns) / block.samples < 12


@pytest.mark.parametrize("change", ["columns", "begin", "count", "layout", "sha256", "missing", "bomb"])
def test_a_block_that_is_not_what_was_sealed_is_not_used(change: str) -> None:
    block = sealed([busy(second) for second in range(10)])
    given_fields, begin_s = fields(block), block.begin_wall_s
    if change == "columns":
        raw = bytearray(zlib.decompress(base64.b64decode(block.columns)))
        raw[50] ^= 1
        given_fields["columns"] = base64.b64encode(zlib.compress(bytes(raw))).decode()
    elif change == "bomb":
        given_fields["columns"] = base64.b64encode(zlib.compress(bytes(100_000_000))).decode()
    elif change == "missing":
        del given_fields["columns"]
    elif change == "begin":
        begin_s += 1.0
    else:
        given_fields[{"count": "samples"}.get(change, change)] = {"count": 9, "layout": 2, "sha256": "0" * 64}[change]
    assert opened(begin_s, given_fields) is None


def test_a_block_is_full_after_its_period_or_when_the_clock_is_set_back() -> None:
    sealer = Sealer(period_s=60.0)
    blocks = [sealer.add(busy(second)) for second in (*range(61), 30, 31)]
    assert [block.samples for block in blocks if block is not None] == [60, 1]
    last = sealer.seal()
    assert last is not None
    assert last.samples == 2
    assert sealer.seal() is None


def test_a_block_never_grows_beyond_what_a_store_takes_as_one_text() -> None:
    chance = random.Random(0)
    names = [name for name in GpuMoment.__slots__ if name not in ("wall_s", "throttle_reasons", "cap_source")]
    sealer = Sealer(period_s=1e9)
    noise = ({name: chance.random() for name in names} for _ in range(MAX_MOMENTS + 1))
    found = [
        sealer.add(GpuMoment(BEGIN_S + second, throttle_reasons=chance.getrandbits(62), **values))
        for second, values in enumerate(noise)
    ]
    (block,) = [one for one in found if one is not None]
    assert block.samples == MAX_MOMENTS
    assert len(block.columns) < 65_536
