"""From Slurm's words for GPUs to UUIDs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_power.errors import DeviceRefused
from slurm_power.gpu.allocation import Allocation, NodeGpu, allocated_uuids
from slurm_power.gpu.options import PowerOptions

# NVML lists boards in another order than their minor numbers.
NODE = [NodeGpu("GPU-c", 2, False), NodeGpu("GPU-a", 0, False), NodeGpu("GPU-b", 1, False), NodeGpu("GPU-m", 3, True)]


@pytest.mark.parametrize(
    ("gpus", "visible", "uuids"),
    [
        pytest.param("0,2", "0,2", ("GPU-a", "GPU-c"), id="indices-are-minor-numbers"),
        pytest.param("2,0", "", ("GPU-c", "GPU-a"), id="order-is-kept"),
        pytest.param("GPU-b", "", ("GPU-b",), id="newer-slurm-names-uuids"),
        pytest.param("0,1", "GPU-c,GPU-b", ("GPU-c", "GPU-b"), id="visible-uuids-are-exact"),
        pytest.param("", "", (), id="no-gpus"),
        pytest.param("", "GPU-a", (), id="visible-alone-proves-nothing"),
        pytest.param("0,0", "", ("GPU-a",), id="named-twice-is-one"),
    ],
)
def test_which_gpus_a_job_has(gpus: str, visible: str, uuids: tuple[str, ...]) -> None:
    assert allocated_uuids(gpus, visible, node_gpus=NODE) == uuids


def test_slurm_may_count_in_another_order_than_the_minor_numbers() -> None:
    assert allocated_uuids("0,1", "", node_gpus=NODE, gpu_minors=(2, 1, 0)) == ("GPU-c", "GPU-b")


@pytest.mark.parametrize(
    ("gpus", "visible", "words"),
    [
        pytest.param("3", "", "MIG is enabled", id="mig-board"),
        pytest.param("0", "MIG-aaaa", "MIG devices", id="mig-device"),
        pytest.param("7", "", "no such GPU", id="unknown-index"),
        pytest.param("GPU-zz", "", "no such GPU", id="unknown-uuid"),
        pytest.param("0-2", "", "neither an index nor a UUID", id="a-range"),
        pytest.param("0;rm -rf /", "", "neither an index nor a UUID", id="hostile"),
    ],
)
def test_what_is_refused(gpus: str, visible: str, words: str) -> None:
    with pytest.raises(DeviceRefused, match=words):
        allocated_uuids(gpus, visible, node_gpus=NODE)


@given(st.text(max_size=50), st.text(max_size=50))
def test_hostile_lists_name_known_gpus_or_are_refused(gpus: str, visible: str) -> None:
    uuids: tuple[str, ...] = ()
    refusal = ""
    try:
        uuids = allocated_uuids(gpus, visible, node_gpus=NODE)
    except DeviceRefused as error:
        refusal = str(error)
    assert refusal.isprintable()
    assert set(uuids) <= {gpu.uuid for gpu in NODE if not gpu.mig_enabled}


def test_a_running_job_may_lower_its_own_cap_but_not_lift_it() -> None:
    job = Allocation(1, 1000, ("GPU-a",), PowerOptions(gpu_cap_watts=300.0), {"GPU-a": 250.0})
    assert job.user_cap_watts("GPU-a") == 250.0
    assert Allocation(1, 1000, ("GPU-a",), PowerOptions(gpu_cap_watts=300.0), {}).user_cap_watts("GPU-a") == 300.0
