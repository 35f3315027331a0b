"""The emulator answers as NVML does: names, codes, sizes, units. Asked through pynvml, as everyone asks."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slurm_power.testing.nvml_emulator.emulator import ENVIRONMENT, EmulatedNode, build_library
from slurm_power.testing.nvml_emulator.library import LIBRARY_NAME
from slurm_power.testing.nvml_emulator.pynvml_copy import pynvml_on

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="NVML's setters need root")


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmulatedNode]:
    state_file = tmp_path / "n1" / "gpus.state"
    monkeypatch.setenv(ENVIRONMENT, str(state_file))
    with EmulatedNode.create(state_file) as opened:
        yield opened


@pytest.fixture
def nvml(node: EmulatedNode) -> Iterator[Any]:
    module = pynvml_on(build_library() / LIBRARY_NAME)
    module.nvmlInit()
    yield module
    module.nvmlShutdown()


@pytest.fixture
def handle(nvml: Any) -> Any:
    return nvml.nvmlDeviceGetHandleByIndex(0)


def test_only_nvml_and_control_functions_are_exported() -> None:
    library = build_library() / LIBRARY_NAME
    listing = subprocess.run(["nm", "-D", "--defined-only", str(library)], capture_output=True, text=True, check=True)
    names = [line.split()[-1] for line in listing.stdout.splitlines()]
    assert "nvmlInitWithFlags" in names
    assert [name for name in names if not name.startswith(("nvml", "emu_"))] == []


def test_nothing_answers_before_init_and_after_shutdown(node: EmulatedNode) -> None:
    module = pynvml_on(build_library() / LIBRARY_NAME)
    with pytest.raises(module.NVMLError_Uninitialized):
        module.nvmlDeviceGetCount()
    module.nvmlInit()
    handle = module.nvmlDeviceGetHandleByIndex(0)
    module.nvmlShutdown()
    with pytest.raises(module.NVMLError_Uninitialized):
        module.nvmlDeviceGetPowerUsage(handle)
    with pytest.raises(module.NVMLError_Uninitialized):
        module.nvmlShutdown()


def test_init_counts_its_users(nvml: Any, handle: Any) -> None:
    nvml.nvmlInit()
    nvml.nvmlShutdown()
    assert nvml.nvmlDeviceGetPowerUsage(handle) == 70000


@pytest.mark.parametrize("path", [None, "", "/nowhere/gpus.state", "/nowhere/%n/gpus.state"])
def test_without_a_node_the_driver_is_not_loaded(monkeypatch: pytest.MonkeyPatch, path: str | None) -> None:
    monkeypatch.delenv("SLURMD_NODENAME", raising=False)
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    if path is not None:
        monkeypatch.setenv(ENVIRONMENT, path)
    module = pynvml_on(build_library() / LIBRARY_NAME)
    with pytest.raises(module.NVMLError_DriverNotLoaded):
        module.nvmlInit()


def test_percent_n_in_the_path_is_the_slurm_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with EmulatedNode.create(tmp_path / "n7" / "gpus.state", gpu_count=3) as node:
        monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "%n" / "gpus.state"))
        monkeypatch.setenv("SLURMD_NODENAME", "n7")
        with EmulatedNode.open_from_environment() as found:
            assert found.gpu_uuids() == node.gpu_uuids()


def test_one_gpu_is_found_by_index_uuid_and_bus_id(nvml: Any, node: EmulatedNode) -> None:
    for index, uuid in enumerate(node.gpu_uuids()):
        by_uuid = nvml.nvmlDeviceGetHandleByUUID(uuid)
        pci = nvml.nvmlDeviceGetPciInfo(by_uuid)
        assert nvml.nvmlDeviceGetIndex(by_uuid) == index
        for bus_id in (pci.busId, pci.busIdLegacy, pci.busId.lower()):
            assert nvml.nvmlDeviceGetIndex(nvml.nvmlDeviceGetHandleByPciBusId(bus_id)) == index
        assert node.uuid_of_minor(nvml.nvmlDeviceGetMinorNumber(by_uuid)) == uuid


def test_nvml_order_is_the_order_of_bus_ids(nvml: Any) -> None:
    handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    bus_ids = [nvml.nvmlDeviceGetPciInfo(handle).busId for handle in handles]
    assert bus_ids == sorted(bus_ids)


def test_wrong_names_and_handles_have_nvmls_own_codes(nvml: Any) -> None:
    with pytest.raises(nvml.NVMLError_InvalidArgument):
        nvml.nvmlDeviceGetHandleByIndex(4)
    with pytest.raises(nvml.NVMLError_NotFound):
        nvml.nvmlDeviceGetHandleByUUID("GPU-00000000-0000-0000-0000-000000000000")
    with pytest.raises(nvml.NVMLError_NotFound):
        nvml.nvmlDeviceGetHandleByPciBusId("00000000:FF:00.0")
    with pytest.raises(nvml.NVMLError_InvalidArgument):
        nvml.nvmlDeviceGetPowerUsage(None)


def test_a_buffer_too_small_is_refused(nvml: Any, handle: Any) -> None:
    buffer = b"\0" * 4
    assert nvml.nvmlLib.nvmlDeviceGetUUID(handle, buffer, len(buffer)) == nvml.NVML_ERROR_INSUFFICIENT_SIZE


def test_limits_and_clocks_are_an_h100s(nvml: Any, handle: Any) -> None:
    assert nvml.nvmlDeviceGetPowerManagementLimitConstraints(handle) == [200000, 700000]
    assert nvml.nvmlDeviceGetPowerManagementDefaultLimit(handle) == 700000
    assert nvml.nvmlDeviceGetPowerManagementLimit(handle) == 700000
    assert nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM) == 1980
    (memory_mhz,) = nvml.nvmlDeviceGetSupportedMemoryClocks(handle)
    clocks = nvml.nvmlDeviceGetSupportedGraphicsClocks(handle, memory_mhz)
    assert clocks == list(range(1980, 344, -15))
    with pytest.raises(nvml.NVMLError_NotFound):
        nvml.nvmlDeviceGetSupportedGraphicsClocks(handle, memory_mhz + 1)


def test_temperature_has_its_thresholds_and_its_margin(nvml: Any, handle: Any) -> None:
    celsius = nvml.nvmlDeviceGetTemperatureV(handle, nvml.NVML_TEMPERATURE_GPU)
    limit = nvml.nvmlDeviceGetTemperatureThreshold(handle, nvml.NVML_TEMPERATURE_THRESHOLD_GPU_MAX)
    slowdown = nvml.nvmlDeviceGetTemperatureThreshold(handle, nvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN)
    shutdown = nvml.nvmlDeviceGetTemperatureThreshold(handle, nvml.NVML_TEMPERATURE_THRESHOLD_SHUTDOWN)
    assert celsius == nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
    assert celsius < limit < slowdown < shutdown
    assert nvml.nvmlDeviceGetMarginTemperature(handle) == pytest.approx(limit - celsius, abs=1)
    with pytest.raises(nvml.NVMLError_NotSupported):
        nvml.nvmlDeviceGetTemperatureThreshold(handle, nvml.NVML_TEMPERATURE_THRESHOLD_ACOUSTIC_MAX)


def test_a_load_is_seen_as_process_memory_and_utilisation(nvml: Any, handle: Any, node: EmulatedNode) -> None:
    assert nvml.nvmlDeviceGetComputeRunningProcesses(handle) == []
    empty = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    node.open_load(node.gpu_uuids()[0], pid=os.getpid(), utilisation_fraction=0.8)
    (process,) = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    held = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    assert process.pid == os.getpid()
    assert held.used - empty.used == process.usedGpuMemory > 0
    assert held.total == held.used + held.free + held.reserved
    assert nvml.nvmlDeviceGetMemoryInfo(handle).used == held.used + held.reserved
    assert nvml.nvmlDeviceGetUtilizationRates(handle).gpu == 80


def test_counters_have_nvmls_units(nvml: Any, handle: Any, node: EmulatedNode) -> None:
    uuid = node.gpu_uuids()[0]
    node.open_load(uuid, pid=os.getpid(), utilisation_fraction=1.0)
    node.set_found_cap(uuid, 300)
    node.pass_time(1000)
    joules, held_back_s = node.gpu_energy_joules(uuid), node.power_violation_s(uuid)
    violation = nvml.nvmlDeviceGetViolationStatus(handle, nvml.NVML_PERF_POLICY_POWER)
    assert nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3 == pytest.approx(joules, rel=0.01)
    assert violation.violationTime / 1e9 == pytest.approx(held_back_s, rel=0.01)
    assert nvml.nvmlDeviceGetPowerUsage(handle) == pytest.approx(node.gpu_draw_watts(uuid) * 1e3, abs=1)
    assert nvml.nvmlDeviceGetCurrentClocksEventReasons(handle) == nvml.nvmlClocksEventReasonSwPowerCap


@as_root
@pytest.mark.parametrize("milliwatts", [0, 199999, 700001, 2**32 - 1])
def test_a_limit_out_of_range_is_an_invalid_argument(nvml: Any, handle: Any, milliwatts: int) -> None:
    with pytest.raises(nvml.NVMLError_InvalidArgument):
        nvml.nvmlDeviceSetPowerManagementLimit(handle, milliwatts)
    assert nvml.nvmlDeviceGetEnforcedPowerLimit(handle) == 700000


@as_root
@pytest.mark.parametrize(("low", "high"), [(1200, 900), (0, 900), (345, 1981)])
def test_a_clock_lock_out_of_range_is_an_invalid_argument(nvml: Any, handle: Any, low: int, high: int) -> None:
    with pytest.raises(nvml.NVMLError_InvalidArgument):
        nvml.nvmlDeviceSetGpuLockedClocks(handle, low, high)


@as_root
def test_a_clock_lock_may_name_the_ends_and_falls_on_a_step(nvml: Any, handle: Any, node: EmulatedNode) -> None:
    nvml.nvmlDeviceSetGpuLockedClocks(handle, nvml.NVML_CLOCK_LIMIT_ID_RANGE_START, 1000)
    assert node.locked_clock_mhz(node.gpu_uuids()[0]) == 990
    nvml.nvmlDeviceSetGpuLockedClocks(handle, 345, nvml.NVML_CLOCK_LIMIT_ID_TDP)
    assert node.locked_clock_mhz(node.gpu_uuids()[0]) == 1980


def test_a_lost_gpu_answers_nothing_and_its_neighbours_everything(nvml: Any, handle: Any, node: EmulatedNode) -> None:
    node.set_fault(node.gpu_uuids()[0], "lost")
    calls = [nvml.nvmlDeviceGetUUID, nvml.nvmlDeviceGetPowerUsage, nvml.nvmlDeviceGetMemoryInfo]
    for call in calls:
        with pytest.raises(nvml.NVMLError_GpuIsLost):
            call(handle)
    with pytest.raises(nvml.NVMLError_GpuIsLost):
        nvml.nvmlDeviceGetHandleByIndex(0)
    assert nvml.nvmlDeviceGetCount() == 4
    for call in calls:
        call(nvml.nvmlDeviceGetHandleByIndex(1))


def test_a_failing_gpu_answers_unknown(nvml: Any, handle: Any, node: EmulatedNode) -> None:
    node.set_fault(node.gpu_uuids()[0], "unknown-error")
    with pytest.raises(nvml.NVMLError_Unknown):
        nvml.nvmlDeviceGetPowerUsage(handle)


def test_threads_may_ask_while_another_starts_and_stops_the_library(nvml: Any, handle: Any) -> None:
    seen: set[int] = set()

    def ask() -> None:
        for _ in range(300):
            nvml.nvmlInit()
            seen.add(nvml.nvmlDeviceGetPowerUsage(handle))
            nvml.nvmlShutdown()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {70000}
