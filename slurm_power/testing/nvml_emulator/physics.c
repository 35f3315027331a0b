/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The board's physics: pure functions of one GPU's state and the time that passed. See emulator.h. */
#include "emulator.h"
#include "nvml_types.h"

#include <math.h>

/* All choices, except that the voltage curve has a flat foot and a slope as real ones do. */
#define VOLTAGE_FLOOR 0.70
#define VOLTAGE_KNEE 0.55
#define WORK_EXPONENT 0.8
#define AMBIENT_CELSIUS 30.0
#define OVERHEAT_AMBIENT_CELSIUS 75.0
#define CELSIUS_PER_WATT 0.05
#define THERMAL_TIME_CONSTANT_S 8.0
#define CEILING_FALL_MHZ_PER_S 60.0
#define CEILING_RISE_MHZ_PER_S 60.0
#define CEILING_HYSTERESIS_CELSIUS 1.0
#define JITTER_PERIOD_NS 250000000
#define JITTER_STEPS 16u
#define STARVED_SHARE 0.15
#define STEP_S 0.1
#define MAX_STEPS 600

#define WATTS_TOLERANCE 1e-6
#define THERMAL_REASONS (NVML_REASON_SW_THERMAL | NVML_REASON_HW_THERMAL)

double emu_power_watts(double utilisation_fraction, unsigned clock_mhz)
{
	double clock = (double)clock_mhz / EMU_MAX_CLOCK_MHZ;
	double slope = (1.0 - VOLTAGE_FLOOR) / (1.0 - VOLTAGE_KNEE);
	double voltage = VOLTAGE_FLOOR + slope * fmax(0.0, clock - VOLTAGE_KNEE);

	return EMU_IDLE_WATTS +
	       utilisation_fraction * (EMU_PEAK_WATTS - EMU_IDLE_WATTS) * clock * voltage * voltage;
}

static double wanted_utilisation(const struct emu_gpu *gpu)
{
	double sum = 0.0;

	for (unsigned i = 0; i < EMU_MAX_LOADS; i++)
		if (gpu->loads[i].pid && !gpu->loads[i].stopped)
			sum += gpu->loads[i].utilisation_fraction;
	return sum;
}

double emu_utilisation(const struct emu_gpu *gpu)
{
	return fmin(1.0, wanted_utilisation(gpu));
}

static unsigned on_step(double mhz)
{
	if (mhz <= EMU_MIN_CLOCK_MHZ)
		return EMU_MIN_CLOCK_MHZ;
	return EMU_MIN_CLOCK_MHZ + (unsigned)((mhz - EMU_MIN_CLOCK_MHZ) / EMU_CLOCK_STEP_MHZ) * EMU_CLOCK_STEP_MHZ;
}

static unsigned thermal_ceiling_mhz(const struct emu_gpu *gpu)
{
	double ceiling = gpu->thermal_ceiling_mhz;

	if (gpu->temperature_celsius >= EMU_HARDWARE_SLOWDOWN_CELSIUS)
		ceiling = fmin(ceiling, EMU_MAX_CLOCK_MHZ / 2.0);
	return on_step(ceiling);
}

/* Another clock, 0 to 225 MHz lower, for every quarter of a second of the node's clock. */
static unsigned jittered(const struct emu_gpu *gpu, unsigned clock)
{
	uint64_t mixed = (uint64_t)(gpu->integrated_to_ns / JITTER_PERIOD_NS) * 0x9e3779b97f4a7c15ull;
	unsigned lower = (unsigned)(mixed >> 60) % JITTER_STEPS * EMU_CLOCK_STEP_MHZ;

	return clock > EMU_MIN_CLOCK_MHZ + lower ? clock - lower : EMU_MIN_CLOCK_MHZ;
}

/* The share of its busy time in which a GPU really computes. */
static double working_share(const struct emu_gpu *gpu)
{
	return gpu->fault == EMU_FAULT_STARVED ? STARVED_SHARE : 1.0;
}

static void settle_idle(struct emu_gpu *gpu)
{
	gpu->clock_mhz = gpu->lock_min_mhz > EMU_MIN_CLOCK_MHZ ? gpu->lock_min_mhz : EMU_MIN_CLOCK_MHZ;
	gpu->draw_watts = EMU_IDLE_WATTS;
	gpu->reasons = NVML_REASON_GPU_IDLE;
}

static void settle_busy(struct emu_gpu *gpu, double utilisation)
{
	unsigned clock = EMU_MAX_CLOCK_MHZ;
	uint64_t reasons = 0;

	utilisation *= working_share(gpu);

	if (gpu->lock_max_mhz && gpu->lock_max_mhz < clock) {
		clock = gpu->lock_max_mhz;
		reasons = NVML_REASON_CLOCKS_SETTING;
	}
	if (thermal_ceiling_mhz(gpu) < clock) {
		clock = thermal_ceiling_mhz(gpu);
		reasons = NVML_REASON_SW_THERMAL;
		if (gpu->temperature_celsius >= EMU_HARDWARE_SLOWDOWN_CELSIUS)
			reasons |= NVML_REASON_HW_THERMAL | NVML_REASON_HW_SLOWDOWN;
	}
	while (clock > EMU_MIN_CLOCK_MHZ &&
	       emu_power_watts(utilisation, clock) > gpu->limit_watts + WATTS_TOLERANCE) {
		clock -= EMU_CLOCK_STEP_MHZ;
		reasons |= NVML_REASON_SW_POWER_CAP;
	}
	if (gpu->fault == EMU_FAULT_CLOCK_JITTER)
		clock = jittered(gpu, clock);
	gpu->clock_mhz = clock;
	gpu->draw_watts = emu_power_watts(utilisation, clock);
	gpu->reasons = reasons;
}

/* Find clock, draw and reasons that follow from limits, loads and temperature. */
void emu_settle(struct emu_gpu *gpu)
{
	double utilisation = emu_utilisation(gpu);

	if (gpu->fault == EMU_FAULT_LOST) {
		gpu->clock_mhz = 0;
		gpu->draw_watts = 0.0;
		gpu->reasons = 0;
	} else if (utilisation > 0.0) {
		settle_busy(gpu, utilisation);
	} else {
		settle_idle(gpu);
	}
}

static void count(struct emu_gpu *gpu, double step_s)
{
	double speed = pow((double)gpu->clock_mhz / EMU_MAX_CLOCK_MHZ, WORK_EXPONENT);
	double share = working_share(gpu) / fmax(1.0, wanted_utilisation(gpu));

	gpu->energy_joules += gpu->draw_watts * step_s;
	if (gpu->reasons & NVML_REASON_SW_POWER_CAP)
		gpu->power_violation_s += step_s;
	if (gpu->reasons & THERMAL_REASONS)
		gpu->thermal_violation_s += step_s;
	for (unsigned i = 0; i < EMU_MAX_LOADS; i++)
		if (gpu->loads[i].pid && !gpu->loads[i].stopped)
			gpu->loads[i].work_s += share * gpu->loads[i].utilisation_fraction * speed * step_s;
}

static void warm(struct emu_gpu *gpu, double step_s)
{
	double ambient = gpu->fault == EMU_FAULT_OVERHEAT ? OVERHEAT_AMBIENT_CELSIUS : AMBIENT_CELSIUS;
	double end = ambient + CELSIUS_PER_WATT * gpu->draw_watts;
	double keep = exp(-step_s / THERMAL_TIME_CONSTANT_S);

	gpu->temperature_celsius = end + (gpu->temperature_celsius - end) * keep;
	if (gpu->temperature_celsius >= EMU_SOFTWARE_SLOWDOWN_CELSIUS)
		gpu->thermal_ceiling_mhz -= CEILING_FALL_MHZ_PER_S * step_s;
	else if (gpu->temperature_celsius < EMU_SOFTWARE_SLOWDOWN_CELSIUS - CEILING_HYSTERESIS_CELSIUS)
		gpu->thermal_ceiling_mhz += CEILING_RISE_MHZ_PER_S * step_s;
	gpu->thermal_ceiling_mhz = fmin(EMU_MAX_CLOCK_MHZ, fmax(EMU_MIN_CLOCK_MHZ, gpu->thermal_ceiling_mhz));
}

/* Move one GPU by `elapsed_s`, in at most MAX_STEPS steps: after a long pause steps grow instead. */
void emu_integrate(struct emu_gpu *gpu, double elapsed_s)
{
	double steps = fmin(MAX_STEPS, ceil(elapsed_s / STEP_S));

	for (double i = 0; i < steps; i++) {
		emu_settle(gpu);
		if (gpu->fault != EMU_FAULT_LOST)
			count(gpu, elapsed_s / steps);
		warm(gpu, elapsed_s / steps);
	}
	emu_settle(gpu);
}

/* The state after a driver load: default limit, no lock, no load, counters at zero. */
void emu_power_on(struct emu_gpu *gpu)
{
	gpu->limit_watts = gpu->default_limit_watts;
	gpu->lock_min_mhz = gpu->lock_max_mhz = 0;
	gpu->energy_joules = gpu->power_violation_s = gpu->thermal_violation_s = 0.0;
	gpu->temperature_celsius = AMBIENT_CELSIUS + CELSIUS_PER_WATT * EMU_IDLE_WATTS;
	gpu->thermal_ceiling_mhz = EMU_MAX_CLOCK_MHZ;
	for (unsigned i = 0; i < EMU_MAX_LOADS; i++)
		gpu->loads[i] = (struct emu_load){0};
	emu_settle(gpu);
}
