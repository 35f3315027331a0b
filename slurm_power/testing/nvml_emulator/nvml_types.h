/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The part of NVML's binary interface that the emulator answers; names and layouts as in pynvml 13. */
#ifndef SLURM_POWER_NVML_TYPES_H
#define SLURM_POWER_NVML_TYPES_H

typedef struct nvmlDevice_st *nvmlDevice_t;

typedef enum {
	NVML_SUCCESS = 0,
	NVML_ERROR_UNINITIALIZED = 1,
	NVML_ERROR_INVALID_ARGUMENT = 2,
	NVML_ERROR_NOT_SUPPORTED = 3,
	NVML_ERROR_NO_PERMISSION = 4,
	NVML_ERROR_NOT_FOUND = 6,
	NVML_ERROR_INSUFFICIENT_SIZE = 7,
	NVML_ERROR_DRIVER_NOT_LOADED = 9,
	NVML_ERROR_TIMEOUT = 10,
	NVML_ERROR_GPU_IS_LOST = 15,
	NVML_ERROR_OPERATING_SYSTEM = 17,
	NVML_ERROR_LIB_RM_VERSION_MISMATCH = 18,
	NVML_ERROR_MEMORY = 20,
	NVML_ERROR_INSUFFICIENT_RESOURCES = 23,
	NVML_ERROR_ARGUMENT_VERSION_MISMATCH = 25,
	NVML_ERROR_UNKNOWN = 999
} nvmlReturn_t;

enum { NVML_CLOCK_GRAPHICS, NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_CLOCK_VIDEO };
enum {
	NVML_TEMPERATURE_THRESHOLD_SHUTDOWN,
	NVML_TEMPERATURE_THRESHOLD_SLOWDOWN,
	NVML_TEMPERATURE_THRESHOLD_MEM_MAX,
	NVML_TEMPERATURE_THRESHOLD_GPU_MAX
};
enum { NVML_PERF_POLICY_POWER, NVML_PERF_POLICY_THERMAL };

#define NVML_CLOCK_LIMIT_ID_RANGE_START 0xffffff00u
#define NVML_CLOCK_LIMIT_ID_TDP 0xffffff01u
#define NVML_CLOCK_LIMIT_ID_UNLIMITED 0xffffff02u

#define NVML_REASON_GPU_IDLE 0x01ull
#define NVML_REASON_CLOCKS_SETTING 0x02ull
#define NVML_REASON_SW_POWER_CAP 0x04ull
#define NVML_REASON_HW_SLOWDOWN 0x08ull
#define NVML_REASON_SW_THERMAL 0x20ull
#define NVML_REASON_HW_THERMAL 0x40ull

#define NVML_MEMORY_V2 0x02000028u
#define NVML_TEMPERATURE_V1 0x0100000Cu
#define NVML_MARGIN_TEMPERATURE_V1 0x01000008u

typedef struct {
	char busIdLegacy[16];
	unsigned domain, bus, device, pciDeviceId, pciSubSystemId;
	char busId[32];
} nvmlPciInfo_t;

typedef struct {
	unsigned gpu, memory; /* percent */
} nvmlUtilization_t;

typedef struct {
	unsigned long long total, free, used;
} nvmlMemory_t;

typedef struct {
	unsigned version;
	unsigned long long total, reserved, free, used;
} nvmlMemory_v2_t;

typedef struct {
	unsigned version;
	int sensorType;
	int temperature;
} nvmlTemperature_t;

typedef struct {
	unsigned version;
	int marginTemperature;
} nvmlMarginTemperature_t;

typedef struct {
	unsigned long long referenceTime; /* microseconds */
	unsigned long long violationTime; /* nanoseconds */
} nvmlViolationTime_t;

typedef struct {
	unsigned pid;
	unsigned long long usedGpuMemory;
	unsigned gpuInstanceId, computeInstanceId;
} nvmlProcessInfo_t;

#endif
