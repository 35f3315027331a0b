/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Clocks: what runs, what is possible, locks. */
#include "nvml_session.h"

static unsigned graphics_clock_count(void)
{
	return (EMU_MAX_CLOCK_MHZ - EMU_MIN_CLOCK_MHZ) / EMU_CLOCK_STEP_MHZ + 1;
}

static nvmlReturn_t answer_clock(nvmlDevice_t device, int type, unsigned *mhz, int highest)
{
	struct emu_gpu *gpu;
	int known = type >= NVML_CLOCK_GRAPHICS && type <= NVML_CLOCK_VIDEO;
	nvmlReturn_t result = session_enter(device, mhz && known, &gpu);

	if (result != NVML_SUCCESS)
		return result;
	if (type == NVML_CLOCK_MEM)
		*mhz = EMU_MEMORY_CLOCK_MHZ;
	else
		*mhz = highest ? EMU_MAX_CLOCK_MHZ : gpu->clock_mhz;
	return session_leave(gpu, NVML_SUCCESS);
}

NVML_API nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, int type, unsigned *mhz)
{
	return answer_clock(device, type, mhz, 0);
}

NVML_API nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, int type, unsigned *mhz)
{
	return answer_clock(device, type, mhz, 1);
}

/* How NVML hands out a list: the caller asks for its size first, with room for none. */
static nvmlReturn_t answer_clocks(unsigned *count, unsigned *mhz, unsigned available, unsigned highest)
{
	unsigned room = *count;

	*count = available;
	if (room < available)
		return NVML_ERROR_INSUFFICIENT_SIZE;
	for (unsigned i = 0; i < available; i++)
		mhz[i] = highest - i * EMU_CLOCK_STEP_MHZ;
	return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceGetSupportedMemoryClocks(nvmlDevice_t device, unsigned *count, unsigned *mhz)
{
	struct emu_gpu *gpu;
	nvmlReturn_t result = session_enter(device, count && (mhz || !*count), &gpu);

	if (result != NVML_SUCCESS)
		return result;
	return session_leave(gpu, answer_clocks(count, mhz, 1, EMU_MEMORY_CLOCK_MHZ));
}

NVML_API nvmlReturn_t nvmlDeviceGetSupportedGraphicsClocks(nvmlDevice_t device, unsigned memory_mhz, unsigned *count,
							   unsigned *mhz)
{
	struct emu_gpu *gpu;
	nvmlReturn_t result = session_enter(device, count && (mhz || !*count), &gpu);

	if (result != NVML_SUCCESS)
		return result;
	if (memory_mhz != EMU_MEMORY_CLOCK_MHZ)
		return session_leave(gpu, NVML_ERROR_NOT_FOUND);
	return session_leave(gpu, answer_clocks(count, mhz, graphics_clock_count(), EMU_MAX_CLOCK_MHZ));
}

static unsigned meant_mhz(unsigned mhz)
{
	switch (mhz) {
	case NVML_CLOCK_LIMIT_ID_RANGE_START:
		return EMU_MIN_CLOCK_MHZ;
	case NVML_CLOCK_LIMIT_ID_TDP:
	case NVML_CLOCK_LIMIT_ID_UNLIMITED:
		return EMU_MAX_CLOCK_MHZ;
	default:
		return mhz;
	}
}

static unsigned on_step(unsigned mhz)
{
	return mhz - (mhz - EMU_MIN_CLOCK_MHZ) % EMU_CLOCK_STEP_MHZ;
}

NVML_API nvmlReturn_t nvmlDeviceSetGpuLockedClocks(nvmlDevice_t device, unsigned min_mhz, unsigned max_mhz)
{
	struct emu_gpu *gpu;
	unsigned lowest = meant_mhz(min_mhz), highest = meant_mhz(max_mhz);
	nvmlReturn_t result = session_enter_as_root(device, 1, &gpu);

	if (result != NVML_SUCCESS)
		return result;
	if (lowest > highest || lowest < EMU_MIN_CLOCK_MHZ || highest > EMU_MAX_CLOCK_MHZ)
		return session_leave(gpu, NVML_ERROR_INVALID_ARGUMENT);
	gpu->lock_min_mhz = on_step(lowest);
	gpu->lock_max_mhz = on_step(highest);
	return session_leave(gpu, NVML_SUCCESS);
}

NVML_API nvmlReturn_t nvmlDeviceResetGpuLockedClocks(nvmlDevice_t device)
{
	struct emu_gpu *gpu;
	nvmlReturn_t result = session_enter_as_root(device, 1, &gpu);

	if (result != NVML_SUCCESS)
		return result;
	gpu->lock_min_mhz = gpu->lock_max_mhz = 0;
	return session_leave(gpu, NVML_SUCCESS);
}
