/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A new node: its boards, their names and where they sit. */
#include "emulator.h"
#include "nvml_types.h"
#include "state.h"

#include <stdio.h>
#include <stdlib.h>

static uint64_t mixed(uint64_t value)
{
	value += 0x9e3779b97f4a7c15ull; /* splitmix64 */
	value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ull;
	value = (value ^ (value >> 27)) * 0x94d049bb133111ebull;
	return value ^ (value >> 31);
}

static void write_uuid(char *uuid, unsigned size, const char *seed, unsigned minor)
{
	uint64_t hash = 0xcbf29ce484222325ull; /* FNV-1a */
	uint64_t high, low;

	for (; *seed; seed++)
		hash = (hash ^ (unsigned char)*seed) * 0x100000001b3ull;
	high = mixed(hash ^ ((uint64_t)minor << 32));
	low = mixed(high ^ hash);
	snprintf(uuid, size, "GPU-%08x-%04x-%04x-%04x-%04x%08x", (unsigned)(high >> 32),
		 (unsigned)(high >> 16) & 0xffff, (unsigned)high & 0xffff, (unsigned)(low >> 48),
		 (unsigned)(low >> 32) & 0xffff, (unsigned)low);
}

static void make_gpu(struct emu_gpu *gpu, unsigned index, unsigned count, const char *seed)
{
	/* NVML orders by PCI bus id. No index equals its minor (for two and more), so that a mix-up shows. */
	gpu->minor = (index + (count + 1) / 2) % count;
	gpu->bus = 0x1b + 0x0c * index;
	gpu->persistence = 1;
	gpu->default_limit_watts = EMU_MAX_LIMIT_WATTS;
	snprintf(gpu->pci_bus_id, sizeof(gpu->pci_bus_id), "00000000:%02X:00.0", gpu->bus);
	write_uuid(gpu->uuid, sizeof(gpu->uuid), seed, gpu->minor);
	emu_power_on(gpu);
	gpu->integrated_to_ns = gpu->looked_at_ns = emu_boottime_ns();
}

int emu_create(const char *path, unsigned gpu_count, double base_watts, const char *uuid_seed)
{
	struct emu_state *state;
	int result;

	if (gpu_count > EMU_MAX_GPUS || !(base_watts >= 0.0))
		return NVML_ERROR_INVALID_ARGUMENT;
	state = calloc(1, sizeof(*state));
	if (!state)
		return NVML_ERROR_MEMORY;
	state->magic = EMU_MAGIC;
	state->version = EMU_VERSION;
	state->size_bytes = sizeof(*state);
	state->base_watts = base_watts;
	state->gpu_count = gpu_count;
	emu_boot_id(state->boot_id, sizeof(state->boot_id));
	for (unsigned i = 0; i < gpu_count; i++)
		make_gpu(&state->gpus[i], i, gpu_count, uuid_seed);
	result = emu_state_init_mutex(state);
	if (result == NVML_SUCCESS)
		result = emu_state_write(path, state);
	free(state);
	return result;
}
