/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Library start and end, device handles. */
#include "nvml_session.h"

#include <string.h>
#include <strings.h>
#include <unistd.h>

struct nvmlDevice_st {
	unsigned index;
};

static pthread_rwlock_t library_lock = PTHREAD_RWLOCK_INITIALIZER; /* held for reading between enter and leave */
static struct emu_node *library_node;
static unsigned library_users;
static struct nvmlDevice_st handles[EMU_MAX_GPUS];

nvmlReturn_t session_text(char *buffer, unsigned length, const char *text)
{
	if (strlen(text) + 1 > length)
		return NVML_ERROR_INSUFFICIENT_SIZE;
	strcpy(buffer, text);
	return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlInitWithFlags(unsigned flags)
{
	char path[4096];
	int result = NVML_SUCCESS;

	(void)flags; /* all of them relax checks that the emulator does not make */
	pthread_rwlock_wrlock(&library_lock);
	if (library_users == 0)
		result = emu_state_path(path, sizeof(path));
	if (result == NVML_SUCCESS && library_users == 0)
		result = emu_open(path, &library_node);
	if (result == NVML_SUCCESS)
		library_users++;
	pthread_rwlock_unlock(&library_lock);
	return result;
}

NVML_API nvmlReturn_t nvmlInit_v2(void)
{
	return nvmlInitWithFlags(0);
}

NVML_API nvmlReturn_t nvmlInit(void)
{
	return nvmlInitWithFlags(0);
}

NVML_API nvmlReturn_t nvmlShutdown(void)
{
	nvmlReturn_t result = NVML_SUCCESS;

	pthread_rwlock_wrlock(&library_lock);
	if (library_users == 0)
		result = NVML_ERROR_UNINITIALIZED;
	else if (--library_users == 0)
		emu_close(library_node);
	pthread_rwlock_unlock(&library_lock);
	return result;
}

/* With library_lock held for reading. */
static nvmlReturn_t find_gpu(nvmlDevice_t device, int arguments_good, struct emu_gpu **gpu)
{
	if (library_users == 0)
		return NVML_ERROR_UNINITIALIZED;
	for (unsigned i = 0; arguments_good && i < library_node->state->gpu_count; i++) {
		if (device == &handles[i]) {
			*gpu = &library_node->state->gpus[i];
			return NVML_SUCCESS;
		}
	}
	return NVML_ERROR_INVALID_ARGUMENT;
}

static nvmlReturn_t fault_of(const struct emu_gpu *gpu)
{
	switch (gpu->fault) {
	case EMU_FAULT_LOST:
		return NVML_ERROR_GPU_IS_LOST;
	case EMU_FAULT_UNKNOWN_ERROR:
		return NVML_ERROR_UNKNOWN;
	default:
		return NVML_SUCCESS;
	}
}

nvmlReturn_t session_enter(nvmlDevice_t device, int arguments_good, struct emu_gpu **gpu)
{
	nvmlReturn_t result;

	pthread_rwlock_rdlock(&library_lock);
	result = find_gpu(device, arguments_good, gpu);
	if (result == NVML_SUCCESS)
		result = emu_lock(library_node);
	if (result != NVML_SUCCESS) {
		pthread_rwlock_unlock(&library_lock);
		return result;
	}
	emu_advance(library_node, *gpu);
	result = fault_of(*gpu);
	return result == NVML_SUCCESS ? result : session_leave(*gpu, result);
}

nvmlReturn_t session_enter_as_root(nvmlDevice_t device, int arguments_good, struct emu_gpu **gpu)
{
	nvmlReturn_t result = session_enter(device, arguments_good, gpu);

	if (result == NVML_SUCCESS && geteuid() != 0)
		return session_leave(*gpu, NVML_ERROR_NO_PERMISSION);
	return result;
}

nvmlReturn_t session_leave(struct emu_gpu *gpu, nvmlReturn_t result)
{
	emu_settle(gpu);
	emu_unlock(library_node);
	pthread_rwlock_unlock(&library_lock);
	return result;
}

NVML_API nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count)
{
	nvmlReturn_t result = NVML_SUCCESS;

	pthread_rwlock_rdlock(&library_lock);
	if (library_users == 0)
		result = NVML_ERROR_UNINITIALIZED;
	else if (!count)
		result = NVML_ERROR_INVALID_ARGUMENT;
	else
		*count = library_node->state->gpu_count;
	pthread_rwlock_unlock(&library_lock);
	return result;
}

/* A handle is given only for a GPU that answers. */
static nvmlReturn_t answer_handle(unsigned index, nvmlDevice_t *device)
{
	struct emu_gpu *gpu;
	nvmlReturn_t result = session_enter(&handles[index], 1, &gpu);

	if (result != NVML_SUCCESS)
		return result;
	*device = &handles[index];
	return session_leave(gpu, NVML_SUCCESS);
}

NVML_API nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *device)
{
	unsigned count;
	nvmlReturn_t result = nvmlDeviceGetCount_v2(&count);

	if (result != NVML_SUCCESS)
		return result;
	if (!device || index >= count)
		return NVML_ERROR_INVALID_ARGUMENT;
	return answer_handle(index, device);
}

/* UUID and bus id never change while the node is mapped, so they are read without its lock. */
static nvmlReturn_t find_named(const char *name, int by_bus_id, unsigned *index)
{
	nvmlReturn_t result = NVML_ERROR_NOT_FOUND;

	pthread_rwlock_rdlock(&library_lock);
	if (library_users == 0)
		result = NVML_ERROR_UNINITIALIZED;
	for (unsigned i = 0; result == NVML_ERROR_NOT_FOUND && i < library_node->state->gpu_count; i++) {
		const struct emu_gpu *gpu = &library_node->state->gpus[i];
		const char *short_bus_id = gpu->pci_bus_id + 4; /* a four-digit domain is taken too */

		if (by_bus_id ? !strcasecmp(name, gpu->pci_bus_id) || !strcasecmp(name, short_bus_id)
			      : !strcmp(name, gpu->uuid)) {
			*index = i;
			result = NVML_SUCCESS;
		}
	}
	pthread_rwlock_unlock(&library_lock);
	return result;
}

NVML_API nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device)
{
	unsigned index;
	nvmlReturn_t result = uuid && device ? find_named(uuid, 0, &index) : NVML_ERROR_INVALID_ARGUMENT;

	return result == NVML_SUCCESS ? answer_handle(index, device) : result;
}

NVML_API nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *device)
{
	unsigned index;
	nvmlReturn_t result = bus_id && device ? find_named(bus_id, 1, &index) : NVML_ERROR_INVALID_ARGUMENT;

	return result == NVML_SUCCESS ? answer_handle(index, device) : result;
}

NVML_API nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned *index)
{
	struct emu_gpu *gpu;
	nvmlReturn_t result = session_enter(device, index != NULL, &gpu);

	if (result != NVML_SUCCESS)
		return result;
	*index = device->index;
	return session_leave(gpu, NVML_SUCCESS);
}

__attribute__((constructor)) static void number_handles(void)
{
	for (unsigned i = 0; i < EMU_MAX_GPUS; i++)
		handles[i].index = i;
}
