"""NvmlGpu and NvmlInventory where boards, drivers and nvidia-ml-py differ: a scripted NVML stands in."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from slurm_power.adapters.gpu_nvml import NvmlGpu, NvmlInventory
from slurm_power.errors import DeviceError, DeviceGone, DeviceRefused, SlurmPowerError, Unavailable

NOT_SUPPORTED, FUNCTION_NOT_FOUND = 3, 13


class ScriptedError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(f"NVML code {value}")
        self.value = value


class ScriptedNvml:
    """One board. `codes[name]`: the call fails so; `missing`: this pynvml does not have it. Counts calls."""

    NVMLError = ScriptedError
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU, NVML_DEVICE_MIG_ENABLE = 1, 2, 0, 1
    NVML_PERF_POLICY_POWER, NVML_PERF_POLICY_THERMAL = 0, 1
    NVML_TEMPERATURE_THRESHOLD_SLOWDOWN = 1

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}
        self.missing: set[str] = set()
        self.calls: list[str] = []
        self.count = 1
        self.limit_mw = 700_000
        self.takes_limit: Callable[[int], int] = lambda asked_mw: asked_mw
        self.answers: dict[str, Callable[..., Any]] = {
            "nvmlInit": lambda: None,
            "nvmlShutdown": lambda: None,
            "nvmlDeviceGetCount": lambda: self.count,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetUUID": lambda handle: f"GPU-{handle}",
            "nvmlDeviceGetName": lambda _: b"Board",
            "nvmlDeviceGetMinorNumber": lambda handle: handle,
            "nvmlDeviceGetPciInfo": lambda _: SimpleNamespace(busId=b"00000000:1B:00.0"),
            "nvmlDeviceGetMigMode": lambda _: [0, 0],
            "nvmlDeviceGetPowerManagementLimitConstraints": lambda _: [200_000, 700_000],
            "nvmlDeviceGetPowerManagementDefaultLimit": lambda _: 700_000,
            "nvmlDeviceGetMaxClockInfo": lambda *_: 1980,
            "nvmlDeviceGetSupportedMemoryClocks": lambda _: [2619, 1593],
            "nvmlDeviceGetSupportedGraphicsClocks": lambda *_: [1980, 1200, 345],
            "nvmlDeviceGetEnforcedPowerLimit": lambda _: self.limit_mw,
            "nvmlDeviceGetPowerManagementLimit": lambda _: self.limit_mw + 1000,
            "nvmlDeviceGetPowerUsage": lambda _: 123_456,
            "nvmlDeviceGetTotalEnergyConsumption": lambda _: 7_500,
            "nvmlDeviceGetClockInfo": lambda _, kind: {1: 1500, 2: 2619}[kind],
            "nvmlDeviceGetTemperatureV": lambda *_: 61,
            "nvmlDeviceGetTemperature": lambda *_: 62,
            "nvmlDeviceGetTemperatureThreshold": lambda _, kind: {1: 90}[kind],
            "nvmlDeviceGetMarginTemperature": lambda _: 26,
            "nvmlDeviceGetUtilizationRates": lambda _: SimpleNamespace(gpu=75, memory=10),
            "nvmlDeviceGetCurrentClocksEventReasons": lambda _: 4,
            "nvmlDeviceGetCurrentClocksThrottleReasons": lambda _: 8,
            "nvmlDeviceGetViolationStatus": lambda _, policy: SimpleNamespace(violationTime=(policy + 1) * 10**9),
            "nvmlDeviceSetPowerManagementLimit": self._set_limit,
            "nvmlDeviceSetGpuLockedClocks": lambda *_: None,
            "nvmlDeviceResetGpuLockedClocks": lambda *_: None,
        }

    def _set_limit(self, _: object, asked_mw: int) -> None:
        self.limit_mw = self.takes_limit(asked_mw)

    def __getattr__(self, name: str) -> Any:
        if name in self.missing or name not in self.answers:
            raise AttributeError(name)

        def call(*arguments: object) -> Any:
            self.calls.append(name)
            if name in self.codes:
                raise ScriptedError(self.codes[name])
            return self.answers[name](*arguments)

        return call


@pytest.fixture
def nvml() -> ScriptedNvml:
    return ScriptedNvml()


def test_a_sample_is_in_our_units(nvml: ScriptedNvml) -> None:
    sample = NvmlGpu(nvml, 0).sample()
    assert sample.draw_watts == 123.456
    assert sample.energy_joules == 7.5
    assert sample.utilisation_fraction == 0.75
    assert (sample.sm_clock_mhz, sample.memory_clock_mhz) == (1500, 2619)
    assert (sample.power_violation_s, sample.thermal_violation_s) == (1.0, 2.0)
    assert sample.temperature_celsius == 61.0
    assert sample.thermal_margin_celsius == 26.0
    assert NvmlGpu(nvml, 0).limits.slowdown_celsius == 90.0


@pytest.mark.parametrize("code", [2, 3, 13, 25])
def test_a_driver_that_refuses_the_margin_in_its_own_way_still_gives_a_sample(nvml: ScriptedNvml, code: int) -> None:
    nvml.codes = dict.fromkeys(("nvmlDeviceGetMarginTemperature", "nvmlDeviceGetTemperatureThreshold"), code)
    gpu = NvmlGpu(nvml, 0)
    assert gpu.sample().thermal_margin_celsius is None
    assert gpu.sample().draw_watts == 123.456
    assert gpu.limits.slowdown_celsius is None
    assert nvml.calls.count("nvmlDeviceGetMarginTemperature") == 1


def test_a_gpu_lost_while_its_margin_is_read_is_gone(nvml: ScriptedNvml) -> None:
    gpu = NvmlGpu(nvml, 0)
    nvml.codes["nvmlDeviceGetMarginTemperature"] = 15
    with pytest.raises(DeviceGone):
        gpu.sample()


def test_a_sample_reads_no_static_fact_again(nvml: ScriptedNvml) -> None:
    gpu = NvmlGpu(nvml, 0)
    nvml.calls.clear()
    gpu.sample()
    assert len(nvml.calls) == len(set(nvml.calls)) + 2  # two clocks, two violation counters
    assert not {call for call in nvml.calls if "Limits" in call or "Supported" in call or "Name" in call}
    assert len(nvml.calls) == 11


def test_what_a_board_does_not_support_is_unknown_and_asked_only_once(nvml: ScriptedNvml) -> None:
    for name in (
        "nvmlDeviceGetTotalEnergyConsumption",
        "nvmlDeviceGetViolationStatus",
        "nvmlDeviceGetUtilizationRates",
    ):
        nvml.codes[name] = NOT_SUPPORTED
    gpu = NvmlGpu(nvml, 0)
    sample = gpu.sample()
    assert sample.energy_joules is None
    assert sample.power_violation_s is None
    assert sample.utilisation_fraction is None
    assert sample.draw_watts == 123.456
    nvml.calls.clear()
    assert gpu.sample() == sample
    assert "nvmlDeviceGetTotalEnergyConsumption" not in nvml.calls
    assert "nvmlDeviceGetViolationStatus" not in nvml.calls


@pytest.mark.parametrize("how", ["not in the driver", "not in pynvml"])
def test_older_drivers_and_older_pynvml_are_asked_by_their_own_names(nvml: ScriptedNvml, how: str) -> None:
    newer = ("nvmlDeviceGetTemperatureV", "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetEnforcedPowerLimit")
    if how == "not in pynvml":
        nvml.missing.update(newer)
    else:
        nvml.codes.update(dict.fromkeys(newer, FUNCTION_NOT_FOUND))
    sample = NvmlGpu(nvml, 0).sample()
    assert sample.temperature_celsius == 62.0
    assert sample.throttle_reasons == 8
    assert sample.enforced_cap_watts == 701.0


def test_the_management_limit_is_not_asked_where_the_enforced_one_is_told(nvml: ScriptedNvml) -> None:
    NvmlGpu(nvml, 0).sample()
    assert "nvmlDeviceGetPowerManagementLimit" not in nvml.calls


def test_a_set_cap_is_read_back(nvml: ScriptedNvml) -> None:
    gpu = NvmlGpu(nvml, 0)
    nvml.calls.clear()
    gpu.set_cap_watts(300.0)
    assert nvml.calls == ["nvmlDeviceSetPowerManagementLimit", "nvmlDeviceGetEnforcedPowerLimit"]


def test_a_cap_that_was_not_taken_is_refused_with_both_numbers(nvml: ScriptedNvml) -> None:
    nvml.takes_limit = lambda _: 350_000
    with pytest.raises(DeviceRefused, match=r"300 W was set, but 350 W is enforced"):
        NvmlGpu(nvml, 0).set_cap_watts(300.0)


def test_a_limit_that_cannot_be_read_back_is_an_error_not_a_success(nvml: ScriptedNvml) -> None:
    gpu = NvmlGpu(nvml, 0)
    nvml.codes.update(dict.fromkeys(("nvmlDeviceGetEnforcedPowerLimit", "nvmlDeviceGetPowerManagementLimit"), 3))
    with pytest.raises(DeviceRefused, match="does not tell its power limit"):
        gpu.set_cap_watts(300.0)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        pytest.param(4, DeviceRefused, id="no-permission"),
        pytest.param(2, DeviceRefused, id="invalid-argument"),
        pytest.param(3, DeviceRefused, id="not-supported"),
        pytest.param(15, DeviceGone, id="gpu-is-lost"),
        pytest.param(6, DeviceGone, id="not-found"),
        pytest.param(28, DeviceGone, id="gpu-not-found"),
        pytest.param(1, Unavailable, id="uninitialized"),
        pytest.param(9, Unavailable, id="driver-not-loaded"),
        pytest.param(10, DeviceError, id="timeout"),
        pytest.param(999, DeviceError, id="unknown"),
    ],
)
def test_each_code_becomes_what_the_caller_should_do(
    nvml: ScriptedNvml, code: int, kind: type[SlurmPowerError]
) -> None:
    gpu = NvmlGpu(nvml, 0)
    nvml.codes["nvmlDeviceSetPowerManagementLimit"] = code
    with pytest.raises(SlurmPowerError, match=r"GPU-0: cap 300 W: NVML code") as caught:
        gpu.set_cap_watts(300.0)
    assert type(caught.value) is kind


def test_a_board_that_does_not_list_its_clocks_is_asked_for_no_lock(nvml: ScriptedNvml) -> None:
    nvml.codes["nvmlDeviceGetSupportedMemoryClocks"] = NOT_SUPPORTED
    gpu = NvmlGpu(nvml, 0)
    assert gpu.limits.min_sm_clock_mhz == gpu.limits.max_sm_clock_mhz == 1980
    with pytest.raises(DeviceRefused):
        gpu.lock_clock_mhz(1200)


def test_a_board_that_cannot_lock_holds_no_lock(nvml: ScriptedNvml) -> None:
    nvml.codes["nvmlDeviceResetGpuLockedClocks"] = NOT_SUPPORTED
    NvmlGpu(nvml, 0).unlock_clock()


@pytest.mark.parametrize(("answer", "enabled"), [([1, 1], True), ([0, 1], False)])
def test_mig_is_told_as_it_is_now(nvml: ScriptedNvml, answer: list[int], enabled: bool) -> None:
    nvml.answers["nvmlDeviceGetMigMode"] = lambda _: answer
    assert NvmlGpu(nvml, 0).identity.mig_enabled is enabled


def test_a_board_without_mig_has_it_off(nvml: ScriptedNvml) -> None:
    nvml.codes["nvmlDeviceGetMigMode"] = NOT_SUPPORTED
    assert NvmlGpu(nvml, 0).identity.mig_enabled is False


def test_no_library_is_no_gpu_and_one_line_in_the_log(nvml: ScriptedNvml, caplog: pytest.LogCaptureFixture) -> None:
    nvml.codes["nvmlInit"] = 12
    inventory = NvmlInventory(nvml)
    with caplog.at_level(logging.WARNING):
        assert inventory.gpus() == inventory.gpus() == []
    assert [record.getMessage() for record in caplog.records] == [
        "no NVIDIA GPU on this node: libnvidia-ml.so.1 is not installed"
    ]


@pytest.mark.parametrize("code", [9, 18, 999])
def test_a_library_that_does_not_start_is_unavailable_until_it_does(nvml: ScriptedNvml, code: int) -> None:
    nvml.codes["nvmlInit"] = code
    inventory = NvmlInventory(nvml)
    with pytest.raises(Unavailable, match=f"NVML code {code}"):
        inventory.gpus()
    del nvml.codes["nvmlInit"]
    assert len(inventory.gpus()) == 1


def test_one_silent_gpu_is_left_out_and_named_once(nvml: ScriptedNvml, caplog: pytest.LogCaptureFixture) -> None:
    nvml.count = 3

    def uuid_of(handle: int) -> str:
        if handle == 1:
            raise ScriptedError(15)
        return f"GPU-{handle}"

    nvml.answers["nvmlDeviceGetUUID"] = uuid_of
    inventory = NvmlInventory(nvml)
    with caplog.at_level(logging.WARNING):
        assert [gpu.identity.uuid for gpu in inventory.gpus()] == ["GPU-0", "GPU-2"]
        inventory.gpus()
    assert len(caplog.records) == 1


def test_asking_again_gives_the_same_gpus_without_reading_static_facts(nvml: ScriptedNvml) -> None:
    inventory = NvmlInventory(nvml)
    first = inventory.gpus()
    nvml.calls.clear()
    assert inventory.gpus() == first
    assert "nvmlDeviceGetPowerManagementLimitConstraints" not in nvml.calls


def test_closing_ends_the_library_once(nvml: ScriptedNvml) -> None:
    inventory = NvmlInventory(nvml)
    inventory.gpus()
    inventory.close()
    inventory.close()
    assert nvml.calls.count("nvmlShutdown") == 1
