/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names and static facts of a board and of the library. */
#include "nvml_session.h"

#include <stdio.h>

#define PCI_DEVICE_ID 0x233010DEu /* GH100, H100 SXM5 80 GB */

NVML_API nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned length)
{
	return version ? session_text(version, length, "580.0.emulated") : NVML_ERROR_INVALID_ARGUMENT;
}

NVML_API nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned length)
{
	return version ? session_text(version, length, "13.580.0.emulated") : NVML_ERROR_INVALID_ARGUMENT;
}

NVML_API nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version)
{
	if (!version)
		return NVML_ERROR_INVALID_ARGUMENT;
	*version = 13000;
	return NVML_SUCCESS;
}

NVML_API const char *nvmlErrorString(nvmlReturn_t result)
{
	switch (result) {
	case NVML_SUCCESS:
		return "Success";
	case NVML_ERROR_UNINITIALIZED:
		return "Uninitialized";
	case NVML_ERROR_INVALID_ARGUMENT:
		return "Invalid Argument";
	case NVML_ERROR_NOT_SUPPORTED:
		return "Not Supported";
	case NVML_ERROR_NO_PERMISSION:
		return "Insufficient Permissions";
	case NVML_ERROR_NOT_FOUND:
		return "Not Found";
	case NVML_ERROR_INSUFFICIENT_SIZE:
		return "Insufficient Size";
	case NVML_ERROR_DRIVER_NOT_LOADED:
		return "Driver Not Loaded";
	case NVML_ERROR_TIMEOUT:
		return "Timeout";
	case NVML_ERROR_GPU_IS_LOST:
		return "GPU is lost";
	case NVML_ERROR_LIB_RM_VERSION_MISMATCH:
		return "RM has detected an NVML/RM version mismatch.";
	case NVML_ERROR_ARGUMENT_VERSION_MISMATCH:
		return "Argument version mismatch";
	default:
		return "Unknown Error";
	}
}

NVML_API nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned length)
{
	struct emu_gpu *gpu;
	nvmlReturn_t result = session_enter(device, name != NULL, &gpu);

	if (result != NVML_SUCCESS)
		return result;
	return session_leave(gpu, session_text(name, length, "NVIDIA H100 80GB HBM3 (emulated)"));
}

NVML_API nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned length)
{
	struct emu_gpu *gpu;
	nvmlReturn_t result = session_enter(device, uuid != NULL, &gpu);

	if (result != NVML_SUCCESS)
		return result;
	return session_leave(gpu, session_text(uuid, length, gpu->uuid));
}

NVML_API nvmlReturn_t nvmlDeviceGetSerial(nvmlDevice_t device, char *serial, unsigned length)
{
	struct emu_gpu *gpu;
	nvmlReturn_t result = session_enter(device, serial != NULL, &gpu);

	if (result != NVML_SUCCESS)
		return result;
	return session_leave(gpu, session_text(serial, length, gpu->uuid + sizeof("GPU-xxxxxxxx-xxxx-xxxx-xxxx-") - 1));
}

NVML_API nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned *minor)
{
	struct emu_gpu *gpu;
	nvmlReturn_t result = session_enter(device, minor != NULL, &gpu);

	if (result != NVML_SUCCESS)
		return result;
	*minor = gpu->minor;
	return session_leave(gpu, NVML_SUCCESS);
}

NVML_API nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci)
{
	struct emu_gpu *gpu;
	nvmlReturn_t result = session_enter(device, pci != NULL, &gpu);

	if (result != NVML_SUCCESS)
		return result;
	*pci = (nvmlPciInfo_t){.bus = gpu->bus, .pciDeviceId = PCI_DEVICE_ID};
	snprintf(pci->busId, sizeof(pci->busId), "%s", gpu->pci_bus_id);
	snprintf(pci->busIdLegacy, sizeof(pci->busIdLegacy), "%.12s", gpu->pci_bus_id + 4);
	return session_leave(gpu, NVML_SUCCESS);
}

NVML_API nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned *current, unsigned *pending)
{
	struct emu_gpu *gpu;
	nvmlReturn_t result = session_enter(device, current && pending, &gpu);

	if (result != NVML_SUCCESS)
		return result;
	*current = *pending = gpu->mig_enabled;
	return session_leave(gpu, NVML_SUCCESS);
}

NVML_API nvmlReturn_t nvmlDeviceGetPersistenceMode(nvmlDevice_t device, int *mode)
{
	struct emu_gpu *gpu;
	nvmlReturn_t result = session_enter(device, mode != NULL, &gpu);

	if (result != NVML_SUCCESS)
		return result;
	*mode = (int)gpu->persistence;
	return session_leave(gpu, NVML_SUCCESS);
}
