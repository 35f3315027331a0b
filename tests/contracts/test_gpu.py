"""What every Gpu does, whoever is behind it: the fake, emulated boards through pynvml, a real board (read only)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from slurm_power.adapters.gpu_nvml import NvmlInventory
from slurm_power.errors import DeviceError, DeviceGone, DeviceRefused
from slurm_power.ports.gpu import Gpu
from slurm_power.testing.fake_gpu import FakeGpu, FakeInventory
from slurm_power.testing.nvml_emulator.emulator import ENVIRONMENT, EmulatedNode, build_library
from slurm_power.testing.nvml_emulator.library import LIBRARY_NAME
from slurm_power.testing.nvml_emulator.pynvml_copy import pynvml_on

REAL_LIBRARIES = [
    Path(folder) / LIBRARY_NAME
    for folder in ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib/wsl/lib")
]


@dataclass
class Board:
    """Two GPUs and the hands of the world on the first one."""

    first: Gpu
    second: Gpu
    work_hard: Callable[[], None]
    fail: Callable[[str], None]
    leave_cap: Callable[[float], None]


def fake_board() -> Iterator[Board]:
    fakes = [FakeGpu(uuid="GPU-fake-a", minor_number=1), FakeGpu(uuid="GPU-fake-b", minor_number=0)]
    first, second = FakeInventory(fakes).gpus()
    yield Board(
        first,
        second,
        work_hard=lambda: setattr(fakes[0], "wants_watts", 650.0),
        fail=lambda fault: setattr(fakes[0], "fault", fault),
        leave_cap=lambda watts: setattr(fakes[0], "cap_watts", watts),
    )


def emulated_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    state_file = tmp_path / "node" / "gpus.state"
    monkeypatch.setenv(ENVIRONMENT, str(state_file))
    with EmulatedNode.create(state_file, gpu_count=2) as node:
        inventory = NvmlInventory(pynvml_on(build_library() / LIBRARY_NAME))
        first, second = inventory.gpus()
        uuid = first.identity.uuid
        yield Board(
            first,
            second,
            work_hard=lambda: node.open_load(uuid, pid=os.getpid(), utilisation_fraction=0.95),
            fail=lambda fault: node.set_fault(uuid, fault),  # type: ignore[arg-type]
            leave_cap=lambda watts: node.set_found_cap(uuid, watts),
        )
        inventory.close()


@pytest.fixture(params=["fake", "emulated"])
def board(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    if request.param == "fake":
        yield from fake_board()
    else:
        yield from emulated_board(tmp_path, monkeypatch)


@pytest.fixture
def settable(board: Board, request: pytest.FixtureRequest) -> Board:
    if os.geteuid() != 0 and "emulated" in request.node.name:
        pytest.skip("NVML's setters need root")
    return board


def test_two_gpus_have_two_names_and_two_minor_numbers(board: Board) -> None:
    identities = [board.first.identity, board.second.identity]
    assert len({identity.uuid for identity in identities}) == 2
    assert {identity.minor_number for identity in identities} == {0, 1}
    assert len({identity.pci_bus_id for identity in identities}) == 2


def test_a_working_gpu_draws_more_than_its_idle_neighbour(board: Board) -> None:
    board.work_hard()
    working, idle = board.first.sample().draw_watts, board.second.sample().draw_watts
    assert working is not None
    assert idle is not None
    assert idle < 100 < 600 < working


def test_a_cap_holds_the_draw_and_leaves_the_neighbour_alone(settable: Board) -> None:
    settable.work_hard()
    settable.first.set_cap_watts(300.0)
    sample = settable.first.sample()
    assert settable.first.enforced_cap_watts() == sample.enforced_cap_watts == 300.0
    assert sample.draw_watts is not None
    assert 250.0 < sample.draw_watts <= 300.0
    assert sample.throttle_reasons == 0x4  # SwPowerCap
    assert settable.second.enforced_cap_watts() == 700.0


@pytest.mark.parametrize("watts", [200.0, 700.0])
def test_both_ends_of_the_range_can_be_set(settable: Board, watts: float) -> None:
    settable.first.set_cap_watts(watts)
    assert settable.first.enforced_cap_watts() == watts


@pytest.mark.parametrize("watts", [-1.0, 0.0, 199.0, 701.0, float("inf"), float("nan")])
def test_a_cap_out_of_range_is_refused_by_name_and_changes_nothing(board: Board, watts: float) -> None:
    with pytest.raises(DeviceRefused, match=rf"{board.first.identity.uuid}.*{watts:g} W.*\[200, 700\] W"):
        board.first.set_cap_watts(watts)
    assert board.first.enforced_cap_watts() == 700.0


def test_the_cap_another_administrator_left_is_told_as_found(board: Board) -> None:
    board.leave_cap(450.0)
    assert board.first.enforced_cap_watts() == 450.0
    assert board.first.limits.default_cap_watts == 700.0


def test_the_margin_to_the_boards_own_slowdown_is_told(board: Board) -> None:
    sample = board.first.sample()
    assert board.first.limits.slowdown_celsius == 90.0
    assert sample.thermal_margin_celsius is not None
    assert sample.temperature_celsius is not None
    assert abs(sample.thermal_margin_celsius + sample.temperature_celsius - 87.0) <= 1.0  # both are whole numbers


def test_a_clock_lock_holds_the_clock_until_it_is_dropped(settable: Board) -> None:
    settable.work_hard()
    settable.first.lock_clock_mhz(1200)
    assert settable.first.sample().sm_clock_mhz == 1200
    settable.first.unlock_clock()
    assert settable.first.sample().sm_clock_mhz == 1980


@pytest.mark.parametrize("mhz", [-1, 0, 344, 1981])
def test_a_clock_out_of_range_is_refused_by_name(board: Board, mhz: int) -> None:
    with pytest.raises(DeviceRefused, match=rf"{mhz} MHz.*\[345, 1980\] MHz"):
        board.first.lock_clock_mhz(mhz)


def test_dropping_a_lock_that_is_not_there_is_no_error(settable: Board) -> None:
    settable.first.unlock_clock()
    settable.first.unlock_clock()


@pytest.mark.parametrize(
    "touch",
    [
        pytest.param(lambda gpu: gpu.sample(), id="sample"),
        pytest.param(lambda gpu: gpu.enforced_cap_watts(), id="enforced-cap"),
        pytest.param(lambda gpu: gpu.set_cap_watts(300.0), id="set-cap"),
        pytest.param(lambda gpu: gpu.lock_clock_mhz(1200), id="lock-clock"),
        pytest.param(lambda gpu: gpu.unlock_clock(), id="unlock-clock"),
    ],
)
def test_a_lost_gpu_is_gone_and_its_neighbour_goes_on(board: Board, touch: Callable[[Gpu], object]) -> None:
    board.fail("lost")
    with pytest.raises(DeviceGone, match=board.first.identity.uuid):
        touch(board.first)
    assert board.second.sample().draw_watts is not None


def test_an_unknown_error_is_a_device_error_but_not_gone(board: Board) -> None:
    board.fail("unknown-error")
    with pytest.raises(DeviceError) as caught:
        board.first.sample()
    assert not isinstance(caught.value, DeviceGone | DeviceRefused)


def test_a_real_board_tells_a_plausible_sample() -> None:
    library = next((path for path in REAL_LIBRARIES if path.exists()), None)
    if library is None:
        pytest.skip("no NVIDIA driver on this machine")
    inventory = NvmlInventory(pynvml_on(library))
    for gpu in inventory.gpus():
        sample = gpu.sample()
        assert gpu.identity.uuid.startswith("GPU-")
        assert gpu.limits.min_cap_watts <= gpu.limits.default_cap_watts <= gpu.limits.max_cap_watts
        assert sample.draw_watts is None or 0 < sample.draw_watts < 2 * gpu.limits.max_cap_watts
        assert sample.enforced_cap_watts is None or sample.enforced_cap_watts <= gpu.limits.max_cap_watts
    inventory.close()
