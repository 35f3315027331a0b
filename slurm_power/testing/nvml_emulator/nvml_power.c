/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Power, energy and limits. NVML speaks milliwatts and millijoules. */
#include "nvml_session.h"

#include <math.h>

static nvmlReturn_t answer_mw(nvmlDevice_t device, unsigned *milliwatts, double (*watts)(const struct emu_gpu *))
{
	struct emu_gpu *gpu;
	nvmlReturn_t result = session_enter(device, milliwatts != NULL, &gpu);

	if (result != NVML_SUCCESS)
		return result;
	*milliwatts = (unsigned)lround(watts(gpu) * 1000.0);
	return session_leave(gpu, NVML_SUCCESS);
}

static double draw_watts(const struct emu_gpu *gpu)
{
	return gpu->draw_watts;
}

static double limit_watts(const struct emu_gpu *gpu)
{
	return gpu->limit_watts;
}

static double default_limit_watts(const struct emu_gpu *gpu)
{
	return gpu->default_limit_watts;
}

NVML_API nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned *milliwatts)
{
	return answer_mw(device, milliwatts, draw_watts);
}

NVML_API nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t device, unsigned *milliwatts)
{
	return answer_mw(device, milliwatts, limit_watts);
}

NVML_API nvmlReturn_t nvmlDeviceGetPowerManagementLimit(nvmlDevice_t device, unsigned *milliwatts)
{
	return answer_mw(device, milliwatts, limit_watts);
}

NVML_API nvmlReturn_t nvmlDeviceGetPowerManagementDefaultLimit(nvmlDevice_t device, unsigned *milliwatts)
{
	return answer_mw(device, milliwatts, default_limit_watts);
}

NVML_API nvmlReturn_t nvmlDeviceGetPowerManagementLimitConstraints(nvmlDevice_t device, unsigned *min_milliwatts,
								   unsigned *max_milliwatts)
{
	struct emu_gpu *gpu;
	nvmlReturn_t result = session_enter(device, min_milliwatts && max_milliwatts, &gpu);

	if (result != NVML_SUCCESS)
		return result;
	*min_milliwatts = (unsigned)(EMU_MIN_LIMIT_WATTS * 1000.0);
	*max_milliwatts = (unsigned)(EMU_MAX_LIMIT_WATTS * 1000.0);
	return session_leave(gpu, NVML_SUCCESS);
}

NVML_API nvmlReturn_t nvmlDeviceSetPowerManagementLimit(nvmlDevice_t device, unsigned milliwatts)
{
	struct emu_gpu *gpu;
	nvmlReturn_t result = session_enter_as_root(device, 1, &gpu);

	if (result != NVML_SUCCESS)
		return result;
	if (milliwatts < EMU_MIN_LIMIT_WATTS * 1000.0 || milliwatts > EMU_MAX_LIMIT_WATTS * 1000.0)
		return session_leave(gpu, NVML_ERROR_INVALID_ARGUMENT);
	gpu->limit_watts = milliwatts / 1000.0;
	return session_leave(gpu, NVML_SUCCESS);
}

NVML_API nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, unsigned long long *millijoules)
{
	struct emu_gpu *gpu;
	nvmlReturn_t result = session_enter(device, millijoules != NULL, &gpu);

	if (result != NVML_SUCCESS)
		return result;
	*millijoules = (unsigned long long)(gpu->energy_joules * 1000.0);
	return session_leave(gpu, NVML_SUCCESS);
}
