/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Temperature, utilisation, memory, processes, throttling. */
#include "nvml_session.h"

#include <math.h>
#include <time.h>

#define MEMORY_UTILISATION_OF_GPU 0.6 /* choice */

static unsigned load_count(const struct emu_gpu *gpu)
{
	unsigned count = 0;

	for (unsigned i = 0; i < EMU_MAX_LOADS; i++)
		count += gpu->loads[i].pid != 0;
	return count;
}

NVML_API nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_t *temperature)
{
	struct emu_gpu *gpu;
	nvmlReturn_t result = session_enter(device, temperature != NULL, &gpu);

	if (result != NVML_SUCCESS)
		return result;
	if (temperature->version != NVML_TEMPERATURE_V1)
		return session_leave(gpu, NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
	if (temperature->sensorType != 0)
		return session_leave(gpu, NVML_ERROR_INVALID_ARGUMENT);
	temperature->temperature = (int)lround(gpu->temperature_celsius);
	return session_leave(gpu, NVML_SUCCESS);
}

NVML_API nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, int sensor, unsigned *celsius)
{
	nvmlTemperature_t temperature = {.version = NVML_TEMPERATURE_V1, .sensorType = sensor};
	nvmlReturn_t result = celsius ? nvmlDeviceGetTemperatureV(device, &temperature) : NVML_ERROR_INVALID_ARGUMENT;

	if (result == NVML_SUCCESS)
		*celsius = (unsigned)temperature.temperature;
	return result;
}

NVML_API nvmlReturn_t nvmlDeviceGetTemperatureThreshold(nvmlDevice_t device, int threshold, unsigned *celsius)
{
	struct emu_gpu *gpu;
	nvmlReturn_t result = session_enter(device, celsius != NULL, &gpu);

	if (result != NVML_SUCCESS)
		return result;
	switch (threshold) {
	case NVML_TEMPERATURE_THRESHOLD_SHUTDOWN:
		*celsius = (unsigned)EMU_SHUTDOWN_CELSIUS;
		break;
	case NVML_TEMPERATURE_THRESHOLD_SLOWDOWN:
		*celsius = (unsigned)EMU_HARDWARE_SLOWDOWN_CELSIUS;
		break;
	case NVML_TEMPERATURE_THRESHOLD_GPU_MAX:
		*celsius = (unsigned)EMU_SOFTWARE_SLOWDOWN_CELSIUS;
		break;
	default:
		return session_leave(gpu, NVML_ERROR_NOT_SUPPORTED);
	}
	return session_leave(gpu, NVML_SUCCESS);
}

NVML_API nvmlReturn_t nvmlDeviceGetMarginTemperature(nvmlDevice_t device, nvmlMarginTemperature_t *margin)
{
	struct emu_gpu *gpu;
	nvmlReturn_t result = session_enter(device, margin != NULL, &gpu);

	if (result != NVML_SUCCESS)
		return result;
	if (margin->version != NVML_MARGIN_TEMPERATURE_V1)
		return session_leave(gpu, NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
	margin->marginTemperature = (int)lround(EMU_SOFTWARE_SLOWDOWN_CELSIUS - gpu->temperature_celsius);
	return session_leave(gpu, NVML_SUCCESS);
}

NVML_API nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *utilisation)
{
	struct emu_gpu *gpu;
	nvmlReturn_t result = session_enter(device, utilisation != NULL, &gpu);

	if (result != NVML_SUCCESS)
		return result;
	utilisation->gpu = (unsigned)lround(emu_utilisation(gpu) * 100.0);
	utilisation->memory = (unsigned)lround(emu_utilisation(gpu) * 100.0 * MEMORY_UTILISATION_OF_GPU);
	return session_leave(gpu, NVML_SUCCESS);
}

NVML_API nvmlReturn_t nvmlDeviceGetPerformanceState(nvmlDevice_t device, int *state)
{
	struct emu_gpu *gpu;
	nvmlReturn_t result = session_enter(device, state != NULL, &gpu);

	if (result != NVML_SUCCESS)
		return result;
	*state = 0; /* data centre boards idle in P0 */
	return session_leave(gpu, NVML_SUCCESS);
}

NVML_API nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t device, unsigned long long *reasons)
{
	struct emu_gpu *gpu;
	nvmlReturn_t result = session_enter(device, reasons != NULL, &gpu);

	if (result != NVML_SUCCESS)
		return result;
	*reasons = gpu->reasons;
	return session_leave(gpu, NVML_SUCCESS);
}

NVML_API nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t device, unsigned long long *reasons)
{
	return nvmlDeviceGetCurrentClocksEventReasons(device, reasons);
}

NVML_API nvmlReturn_t nvmlDeviceGetSupportedClocksEventReasons(nvmlDevice_t device, unsigned long long *reasons)
{
	struct emu_gpu *gpu;
	nvmlReturn_t result = session_enter(device, reasons != NULL, &gpu);

	if (result != NVML_SUCCESS)
		return result;
	*reasons = NVML_REASON_GPU_IDLE | NVML_REASON_CLOCKS_SETTING | NVML_REASON_SW_POWER_CAP |
		   NVML_REASON_HW_SLOWDOWN | NVML_REASON_SW_THERMAL | NVML_REASON_HW_THERMAL;
	return session_leave(gpu, NVML_SUCCESS);
}

NVML_API nvmlReturn_t nvmlDeviceGetViolationStatus(nvmlDevice_t device, int policy, nvmlViolationTime_t *violation)
{
	struct emu_gpu *gpu;
	struct timespec now;
	nvmlReturn_t result = session_enter(device, violation != NULL, &gpu);

	if (result != NVML_SUCCESS)
		return result;
	if (policy != NVML_PERF_POLICY_POWER && policy != NVML_PERF_POLICY_THERMAL)
		return session_leave(gpu, NVML_ERROR_NOT_SUPPORTED);
	clock_gettime(CLOCK_REALTIME, &now);
	violation->referenceTime = (unsigned long long)now.tv_sec * 1000000 + (unsigned long long)now.tv_nsec / 1000;
	violation->violationTime = (unsigned long long)(1e9 * (policy == NVML_PERF_POLICY_POWER
								       ? gpu->power_violation_s
								       : gpu->thermal_violation_s));
	return session_leave(gpu, NVML_SUCCESS);
}

NVML_API nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
	struct emu_gpu *gpu;
	nvmlReturn_t result = session_enter(device, memory != NULL, &gpu);

	if (result != NVML_SUCCESS)
		return result;
	if (memory->version != NVML_MEMORY_V2)
		return session_leave(gpu, NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
	memory->total = EMU_MEMORY_BYTES;
	memory->reserved = EMU_MEMORY_RESERVED_BYTES;
	memory->used = load_count(gpu) * EMU_MEMORY_PER_LOAD_BYTES;
	memory->free = memory->total - memory->reserved - memory->used;
	return session_leave(gpu, NVML_SUCCESS);
}

/* The first version has no field for reserved memory and counts it as used. */
NVML_API nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
	nvmlMemory_v2_t whole = {.version = NVML_MEMORY_V2};
	nvmlReturn_t result = memory ? nvmlDeviceGetMemoryInfo_v2(device, &whole) : NVML_ERROR_INVALID_ARGUMENT;

	if (result == NVML_SUCCESS)
		*memory = (nvmlMemory_t){whole.total, whole.free, whole.used + whole.reserved};
	return result;
}

NVML_API nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned *count,
							      nvmlProcessInfo_t *processes)
{
	struct emu_gpu *gpu;
	nvmlReturn_t result = session_enter(device, count && (processes || !*count), &gpu);
	unsigned room, written = 0;

	if (result != NVML_SUCCESS)
		return result;
	room = *count;
	*count = load_count(gpu);
	if (room < *count)
		return session_leave(gpu, NVML_ERROR_INSUFFICIENT_SIZE);
	for (unsigned i = 0; i < EMU_MAX_LOADS; i++)
		if (gpu->loads[i].pid)
			processes[written++] = (nvmlProcessInfo_t){
				.pid = (unsigned)gpu->loads[i].pid,
				.usedGpuMemory = EMU_MEMORY_PER_LOAD_BYTES,
				.gpuInstanceId = 0xffffffffu,
				.computeInstanceId = 0xffffffffu,
			};
	return session_leave(gpu, NVML_SUCCESS);
}
