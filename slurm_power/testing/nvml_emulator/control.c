/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The testing side: open nodes, register loads, cause faults, read what a GPU physically does. */
#include "emulator.h"
#include "nvml_types.h"
#include "state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Put $SLURM_POWER_EMULATED_NODE into `path`, with %n as $SLURMD_NODENAME (as slurm.conf writes it). */
int emu_state_path(char *path, unsigned size)
{
	const char *pattern = getenv(EMU_ENVIRONMENT);
	const char *node_name = getenv("SLURMD_NODENAME");
	const char *mark = pattern ? strstr(pattern, "%n") : NULL;
	int length;

	if (!pattern || !*pattern || (mark && !node_name))
		return NVML_ERROR_DRIVER_NOT_LOADED;
	if (mark)
		length = snprintf(path, size, "%.*s%s%s", (int)(mark - pattern), pattern, node_name, mark + 2);
	else
		length = snprintf(path, size, "%s", pattern);
	return length < (int)size ? NVML_SUCCESS : NVML_ERROR_INSUFFICIENT_SIZE;
}

int emu_open(const char *path, struct emu_node **node)
{
	struct emu_node *opened = calloc(1, sizeof(*opened));
	int result = opened ? emu_state_map(path, &opened->state) : NVML_ERROR_MEMORY;

	if (result == NVML_SUCCESS)
		*node = opened;
	else
		free(opened);
	return result;
}

void emu_close(struct emu_node *node)
{
	emu_state_unmap(node->state);
	free(node);
}

unsigned emu_gpu_count(const struct emu_node *node)
{
	return node->state->gpu_count;
}

double emu_base_watts(const struct emu_node *node)
{
	return node->state->base_watts;
}

static int enter(struct emu_node *node, unsigned index, struct emu_gpu **gpu)
{
	int result;

	if (index >= node->state->gpu_count)
		return NVML_ERROR_INVALID_ARGUMENT;
	result = emu_lock(node);
	if (result != NVML_SUCCESS)
		return result;
	*gpu = &node->state->gpus[index];
	emu_advance(node, *gpu);
	return NVML_SUCCESS;
}

static int leave(struct emu_node *node, struct emu_gpu *gpu, int result)
{
	emu_settle(gpu);
	emu_unlock(node);
	return result;
}

int emu_read(struct emu_node *node, unsigned index, struct emu_reading *reading)
{
	struct emu_gpu *gpu;
	int result = enter(node, index, &gpu);

	if (result != NVML_SUCCESS)
		return result;
	*reading = (struct emu_reading){
		.draw_watts = gpu->draw_watts,
		.energy_joules = gpu->energy_joules,
		.limit_watts = gpu->limit_watts,
		.default_limit_watts = gpu->default_limit_watts,
		.temperature_celsius = gpu->temperature_celsius,
		.utilisation_fraction = emu_utilisation(gpu),
		.power_violation_s = gpu->power_violation_s,
		.thermal_violation_s = gpu->thermal_violation_s,
		.reasons = gpu->reasons,
		.clock_mhz = gpu->clock_mhz,
		.lock_max_mhz = gpu->lock_max_mhz,
		.fault = gpu->fault,
		.minor = gpu->minor,
	};
	memcpy(reading->uuid, gpu->uuid, sizeof(reading->uuid));
	return leave(node, gpu, NVML_SUCCESS);
}

static struct emu_load *find_load(struct emu_gpu *gpu, int pid)
{
	for (unsigned i = 0; i < EMU_MAX_LOADS; i++)
		if (gpu->loads[i].pid == pid)
			return &gpu->loads[i];
	return NULL;
}

static int register_load(struct emu_gpu *gpu, int pid, double utilisation_fraction)
{
	struct emu_load *load = find_load(gpu, pid);
	char run_state;

	if (gpu->fault == EMU_FAULT_LOST)
		return NVML_ERROR_GPU_IS_LOST;
	if (!load) {
		load = find_load(gpu, 0);
		if (!load)
			return NVML_ERROR_INSUFFICIENT_RESOURCES;
		if (emu_process_start(pid, &load->pid_start_ticks, &run_state) != 0)
			return NVML_ERROR_NOT_FOUND;
		load->work_s = 0.0;
		load->stopped = 0;
	}
	load->utilisation_fraction = utilisation_fraction;
	load->pid = pid;
	return NVML_SUCCESS;
}

/* A second open of the same process changes its utilisation and keeps its work. */
int emu_open_load(struct emu_node *node, unsigned index, int pid, double utilisation_fraction)
{
	struct emu_gpu *gpu;
	int result;

	if (pid <= 0 || !(utilisation_fraction >= 0.0 && utilisation_fraction <= 1.0))
		return NVML_ERROR_INVALID_ARGUMENT;
	result = enter(node, index, &gpu);
	if (result != NVML_SUCCESS)
		return result;
	emu_drop_dead_loads(gpu); /* the dead must not take the last slot, nor live on under a pid used again */
	return leave(node, gpu, register_load(gpu, pid, utilisation_fraction));
}

int emu_close_load(struct emu_node *node, unsigned index, int pid)
{
	struct emu_gpu *gpu;
	struct emu_load *load;
	int result = pid > 0 ? enter(node, index, &gpu) : NVML_ERROR_INVALID_ARGUMENT;

	if (result != NVML_SUCCESS)
		return result;
	load = find_load(gpu, pid);
	if (load)
		*load = (struct emu_load){0};
	return leave(node, gpu, NVML_SUCCESS);
}

/* NOT_FOUND once the load is gone: closed, its process dead, or the GPU fell off the bus. */
int emu_work_done(struct emu_node *node, unsigned index, int pid, double *work_s)
{
	struct emu_gpu *gpu;
	struct emu_load *load;
	int result = pid > 0 ? enter(node, index, &gpu) : NVML_ERROR_INVALID_ARGUMENT;

	if (result != NVML_SUCCESS)
		return result;
	load = find_load(gpu, pid);
	if (load)
		*work_s = load->work_s;
	return leave(node, gpu, load ? NVML_SUCCESS : NVML_ERROR_NOT_FOUND);
}

int emu_set_fault(struct emu_node *node, unsigned index, unsigned fault)
{
	struct emu_gpu *gpu;
	double energy_joules;
	int result = fault <= EMU_FAULT_STARVED ? enter(node, index, &gpu) : NVML_ERROR_INVALID_ARGUMENT;

	if (result != NVML_SUCCESS)
		return result;
	if (fault == EMU_FAULT_LOST && gpu->fault != EMU_FAULT_LOST) {
		energy_joules = gpu->energy_joules; /* the meter in the wall still counted it */
		emu_power_on(gpu);
		gpu->energy_joules = energy_joules;
	}
	gpu->fault = fault;
	return leave(node, gpu, NVML_SUCCESS);
}

/* What another administrator would set: no right is asked for, the board's range holds. */
static int set_watts(struct emu_node *node, unsigned index, double watts, int the_default)
{
	struct emu_gpu *gpu;
	int in_range = watts >= EMU_MIN_LIMIT_WATTS && watts <= EMU_MAX_LIMIT_WATTS;
	int result = in_range ? enter(node, index, &gpu) : NVML_ERROR_INVALID_ARGUMENT;

	if (result != NVML_SUCCESS)
		return result;
	if (the_default)
		gpu->default_limit_watts = watts;
	else
		gpu->limit_watts = watts;
	return leave(node, gpu, NVML_SUCCESS);
}

int emu_set_limit(struct emu_node *node, unsigned index, double watts)
{
	return set_watts(node, index, watts, 0);
}

int emu_set_default_limit(struct emu_node *node, unsigned index, double watts)
{
	return set_watts(node, index, watts, 1);
}

int emu_set_mig(struct emu_node *node, unsigned index, unsigned enabled)
{
	struct emu_gpu *gpu;
	int result = enter(node, index, &gpu);

	if (result != NVML_SUCCESS)
		return result;
	gpu->mig_enabled = enabled != 0;
	return leave(node, gpu, NVML_SUCCESS);
}

/* Let the node's clock jump, so that tests need not wait. */
int emu_pass_time(struct emu_node *node, double seconds)
{
	int result = seconds >= 0.0 ? emu_lock(node) : NVML_ERROR_INVALID_ARGUMENT;

	if (result != NVML_SUCCESS)
		return result;
	node->state->clock_offset_ns += (int64_t)(seconds * 1e9);
	for (unsigned i = 0; i < node->state->gpu_count; i++)
		emu_advance(node, &node->state->gpus[i]);
	emu_unlock(node);
	return NVML_SUCCESS;
}

int emu_hold_lock(struct emu_node *node)
{
	return emu_lock(node);
}
