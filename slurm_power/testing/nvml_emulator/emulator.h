/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Emulated NVIDIA GPUs behind NVML's own functions: for tests, demos and development only.
 *
 * One state file per node is mapped by every process that looks (agent, jobs, tests), so all see one
 * truth. There is no daemon: whoever reads or writes first moves the physics from the last look to now.
 *
 * Board figures from NVIDIA's public H100 SXM data: 700 W limit, 200 W lowest limit, 1980 MHz highest SM
 * clock in 15 MHz steps, 2619 MHz memory clock, 80 GB. Everything else named "choice" is ours.
 *
 * Modelled
 *   power         P = idle + u * (peak - idle) * (f/fmax) * (V(f)/Vmax)^2; V is flat up to a knee, then
 *                 linear in f, so power grows faster than the clock above the knee. (shape: choice)
 *   power limit   lowers f, in 15 MHz steps, to the highest clock whose power fits; sets SwPowerCap
 *   clock lock    bounds f on both sides; the power limit may still go below its lower side
 *   temperature   follows ambient + resistance * P with one time constant (choice)
 *   thermal       above 87 C software slowdown lowers a clock ceiling step by step, above 90 C hardware
 *                 slowdown halves the clock as well (thresholds: choice, near the public ones)
 *   counters      energy; time held back by the power limit and by heat
 *   work          each load gains utilisation * (f/fmax)^0.8 full-speed seconds a second. Below 1 because
 *                 part of real work waits for memory, whose clock does not follow the SM clock. (choice)
 *   loads         belong to a process; a dead one (pid and start time are compared) is dropped at the next
 *                 look, a stopped one (SIGSTOP) keeps its memory and uses nothing
 *   faults        lost (GPU_IS_LOST everywhere, draws nothing; comes back as after a driver reload),
 *                 unknown-error (UNKNOWN everywhere, goes on drawing), overheat (hot inlet air), clock-jitter
 *                 (the clock under load jumps, four times a second, and no reason is told), starved (kernels that
 *                 wait for data: busy to NVML, but little work and little draw)
 *
 * Not modelled: leakage that grows with temperature, NVML's one-second power averaging, the time a clock
 * change takes, memory clock changes, NVLink and PCIe, ECC, fans, work inside MIG instances. The time a load lived
 * between its death and the next look counts as work time.
 *
 * Setters need effective uid 0, as with the real library. The state file itself is world-writable: jobs
 * of any user register their load there. So this library protects nothing; it only emulates.
 */
#ifndef SLURM_POWER_EMULATOR_H
#define SLURM_POWER_EMULATOR_H

#include <pthread.h>
#include <stdint.h>

#define EMU_EXPORT __attribute__((visibility("default")))
#define EMU_ENVIRONMENT "SLURM_POWER_EMULATED_NODE" /* path; %n becomes $SLURMD_NODENAME */

#define EMU_MAGIC 0x4c4d564e57505453ull
#define EMU_VERSION 1u
#define EMU_MAX_GPUS 16u
#define EMU_MAX_LOADS 16u

#define EMU_IDLE_WATTS 70.0
#define EMU_PEAK_WATTS 700.0 /* u = 1 at the highest clock just meets the default limit (choice) */
#define EMU_MIN_LIMIT_WATTS 200.0
#define EMU_MAX_LIMIT_WATTS 700.0
#define EMU_MIN_CLOCK_MHZ 345u
#define EMU_MAX_CLOCK_MHZ 1980u
#define EMU_CLOCK_STEP_MHZ 15u
#define EMU_MEMORY_CLOCK_MHZ 2619u
#define EMU_SOFTWARE_SLOWDOWN_CELSIUS 87.0
#define EMU_HARDWARE_SLOWDOWN_CELSIUS 90.0
#define EMU_SHUTDOWN_CELSIUS 95.0
#define EMU_MEMORY_BYTES 85520809984ull
#define EMU_MEMORY_RESERVED_BYTES (512ull << 20)
#define EMU_MEMORY_PER_LOAD_BYTES (4ull << 30) /* choice */

enum emu_fault {
	EMU_FAULT_NONE,
	EMU_FAULT_LOST,
	EMU_FAULT_UNKNOWN_ERROR,
	EMU_FAULT_OVERHEAT,
	EMU_FAULT_CLOCK_JITTER,
	EMU_FAULT_STARVED
};

struct emu_load {
	int32_t pid; /* 0: free slot */
	uint32_t stopped;
	uint64_t pid_start_ticks; /* field 22 of /proc/<pid>/stat: a pid may be used again */
	double utilisation_fraction;
	double work_s;
};

struct emu_gpu {
	char uuid[48];
	char pci_bus_id[32];
	uint32_t bus;
	uint32_t minor;
	uint32_t fault;
	uint32_t mig_enabled;
	uint32_t persistence;
	uint32_t lock_min_mhz; /* both 0: no lock */
	uint32_t lock_max_mhz;
	uint32_t clock_mhz;
	uint64_t reasons; /* nvmlClocksEventReason bits */
	double default_limit_watts;
	double limit_watts;
	double draw_watts;
	double energy_joules;
	double temperature_celsius;
	double thermal_ceiling_mhz;
	double power_violation_s;
	double thermal_violation_s;
	int64_t integrated_to_ns; /* node clock */
	int64_t looked_at_ns;	  /* CLOCK_BOOTTIME of the last check for dead processes */
	struct emu_load loads[EMU_MAX_LOADS];
};

struct emu_state {
	uint64_t magic;
	uint32_t version;
	uint32_t size_bytes;
	char boot_id[40]; /* another boot: the mutex is void and the driver was reloaded */
	pthread_mutex_t mutex;
	int64_t clock_offset_ns; /* node clock = CLOCK_BOOTTIME + this */
	double base_watts;
	uint32_t gpu_count;
	uint32_t padding;
	struct emu_gpu gpus[EMU_MAX_GPUS]; /* in NVML order */
};

struct emu_node {
	struct emu_state *state;
};

/* What one GPU physically does; also told of a GPU that NVML would call lost. */
struct emu_reading {
	double draw_watts;
	double energy_joules;
	double limit_watts;
	double default_limit_watts;
	double temperature_celsius;
	double utilisation_fraction;
	double power_violation_s;
	double thermal_violation_s;
	uint64_t reasons;
	uint32_t clock_mhz;
	uint32_t lock_max_mhz; /* 0: no lock */
	uint32_t fault;
	uint32_t minor;
	char uuid[48];
};

/* physics.c: pure, no clock, no file */
double emu_power_watts(double utilisation_fraction, unsigned clock_mhz);
double emu_utilisation(const struct emu_gpu *gpu);
void emu_settle(struct emu_gpu *gpu);
void emu_integrate(struct emu_gpu *gpu, double elapsed_s);
void emu_power_on(struct emu_gpu *gpu);

/* processes.c */
int emu_process_start(int pid, uint64_t *start_ticks, char *run_state);
void emu_drop_dead_loads(struct emu_gpu *gpu);

/* state.c; all return an nvmlReturn_t */
int emu_lock(struct emu_node *node);
void emu_unlock(struct emu_node *node);
void emu_advance(struct emu_node *node, struct emu_gpu *gpu);

/* control.c: the testing side, called from emulator.py; all return an nvmlReturn_t */
EMU_EXPORT int emu_state_path(char *path, unsigned size);
EMU_EXPORT int emu_create(const char *path, unsigned gpu_count, double base_watts, const char *uuid_seed);
EMU_EXPORT int emu_open(const char *path, struct emu_node **node);
EMU_EXPORT void emu_close(struct emu_node *node);
EMU_EXPORT unsigned emu_gpu_count(const struct emu_node *node);
EMU_EXPORT double emu_base_watts(const struct emu_node *node);
EMU_EXPORT int emu_read(struct emu_node *node, unsigned index, struct emu_reading *reading);
EMU_EXPORT int emu_open_load(struct emu_node *node, unsigned index, int pid, double utilisation_fraction);
EMU_EXPORT int emu_close_load(struct emu_node *node, unsigned index, int pid);
EMU_EXPORT int emu_work_done(struct emu_node *node, unsigned index, int pid, double *work_s);
EMU_EXPORT int emu_set_fault(struct emu_node *node, unsigned index, unsigned fault);
EMU_EXPORT int emu_set_limit(struct emu_node *node, unsigned index, double watts);
EMU_EXPORT int emu_set_default_limit(struct emu_node *node, unsigned index, double watts);
EMU_EXPORT int emu_set_mig(struct emu_node *node, unsigned index, unsigned enabled);
EMU_EXPORT int emu_pass_time(struct emu_node *node, double seconds);
EMU_EXPORT int emu_hold_lock(struct emu_node *node); /* and never give it back: to test a killed holder */

#endif
