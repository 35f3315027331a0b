"""What an agent tells of its GPUs: enforced limits, their source, reasons to slow down; nothing it cannot know."""

from __future__ import annotations

from slurm_power.daemons.node_agent_gpu import ManagedGpu
from slurm_power.daemons.node_agent_metrics import agent_metrics
from slurm_power.daemons.node_agent_views import GpuView
from slurm_power.gpu.caps import CapSources, ClockSources, effective_cap, effective_clock
from slurm_power.testing.fake_gpu import FakeGpu


def told(gpu: FakeGpu, *, job_id: int | None = 7, tracks_lease: bool = True) -> dict[tuple[str, ...], float]:
    """(metric, labels' values) -> value, of one GPU that its user holds at 300 W."""
    managed = ManagedGpu(gpu)
    managed.take_sample(now_s=10.0)
    cap = effective_cap(CapSources(found_watts=700.0, user_watts=300.0, min_watts=200.0, max_watts=700.0))
    view = GpuView(managed, cap, effective_clock(ClockSources(345, 1980)), job_id)
    families = agent_metrics([view], base_watts=None, lease_remaining_s=None, tracks_lease=tracks_lease, now_s=12.5)
    return {
        (family.name, *(text for key, text in labels.items() if key != "uuid")): value
        for family in families
        for labels, value in family.samples
    }


def test_a_capped_gpu_names_who_capped_it_and_that_the_cap_holds_it_back() -> None:
    found = told(FakeGpu(cap_watts=300.0, wants_watts=650.0))
    assert found["gpu_cap_watts",] == 300.0
    assert found["gpu_cap_source", "user"] == 1.0
    assert found["gpu_throttled", "sw_power_cap"] == 1.0
    assert found["gpu_throttled", "hw_thermal"] == 0.0
    assert found["gpu_draw_watts",] == 300.0
    assert found["gpu_sample_age_seconds",] == 2.5
    assert found["gpu_sm_clock_hertz",] > 1e8


def test_of_a_lost_gpu_only_that_is_told() -> None:
    found = told(FakeGpu(fault="lost"), job_id=None)
    assert found["gpu_readable",] == 0.0
    assert found["gpu_allocated",] == 0.0
    assert not {"gpu_draw_watts", "gpu_energy_joules", "gpu_temperature_celsius"} & {key[0] for key in found}


def test_an_agent_without_a_controller_misses_no_lease() -> None:
    assert told(FakeGpu())["agent_lease_held",] == 0.0
    assert ("agent_lease_held",) not in told(FakeGpu(), tracks_lease=False)
    assert ("node_base_watts",) not in told(FakeGpu()), "unknown, not 0"
