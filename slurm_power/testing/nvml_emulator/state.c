/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "state.h"
#include "nvml_types.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LOCK_PATIENCE_S 2 /* a holder stopped by SIGSTOP must not hang the others for ever */
#define LOOK_AT_PROCESSES_EVERY_NS 20000000

int64_t emu_boottime_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void emu_boot_id(char *boot_id, unsigned size)
{
	FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");

	memset(boot_id, 0, size);
	if (!file)
		return;
	if (fgets(boot_id, (int)size, file))
		boot_id[strcspn(boot_id, "\n")] = '\0';
	fclose(file);
}

/* Robust: the kernel tells the next owner when a holder died (pthread_mutexattr_setrobust(3)). */
int emu_state_init_mutex(struct emu_state *state)
{
	pthread_mutexattr_t attributes;
	int error;

	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	error = pthread_mutex_init(&state->mutex, &attributes);
	pthread_mutexattr_destroy(&attributes);
	return error ? NVML_ERROR_OPERATING_SYSTEM : NVML_SUCCESS;
}

/* Write beside the path and rename: nobody ever maps half a file. */
int emu_state_write(const char *path, const struct emu_state *state)
{
	char beside[4096];
	int fd, good;

	if (snprintf(beside, sizeof(beside), "%s.new.%d", path, (int)getpid()) >= (int)sizeof(beside))
		return NVML_ERROR_INVALID_ARGUMENT;
	fd = open(beside, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
	if (fd < 0)
		return NVML_ERROR_OPERATING_SYSTEM;
	good = write(fd, state, sizeof(*state)) == (ssize_t)sizeof(*state);
	good = good && fchmod(fd, 0666) == 0; /* any user's job registers its load here: emulation only */
	good = close(fd) == 0 && good;
	if (good && rename(beside, path) == 0)
		return NVML_SUCCESS;
	unlink(beside);
	return NVML_ERROR_OPERATING_SYSTEM;
}

static void after_reboot(struct emu_state *state)
{
	emu_state_init_mutex(state);
	state->clock_offset_ns = 0;
	for (unsigned i = 0; i < state->gpu_count; i++) {
		emu_power_on(&state->gpus[i]);
		state->gpus[i].integrated_to_ns = state->gpus[i].looked_at_ns = emu_boottime_ns();
	}
	emu_boot_id(state->boot_id, sizeof(state->boot_id));
}

static int check(int fd, struct emu_state *state)
{
	char boot_id[sizeof(state->boot_id)];

	if (state->magic != EMU_MAGIC || state->gpu_count > EMU_MAX_GPUS)
		return NVML_ERROR_DRIVER_NOT_LOADED;
	if (state->version != EMU_VERSION || state->size_bytes != sizeof(*state))
		return NVML_ERROR_LIB_RM_VERSION_MISMATCH;
	emu_boot_id(boot_id, sizeof(boot_id));
	if (flock(fd, LOCK_EX) != 0)
		return NVML_ERROR_OPERATING_SYSTEM;
	if (strcmp(boot_id, state->boot_id) != 0)
		after_reboot(state);
	flock(fd, LOCK_UN);
	return NVML_SUCCESS;
}

int emu_state_map(const char *path, struct emu_state **state)
{
	struct stat facts;
	void *memory;
	int result;
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return errno == EACCES ? NVML_ERROR_NO_PERMISSION : NVML_ERROR_DRIVER_NOT_LOADED;
	if (fstat(fd, &facts) != 0 || facts.st_size != (off_t)sizeof(**state)) {
		close(fd);
		return NVML_ERROR_LIB_RM_VERSION_MISMATCH;
	}
	memory = mmap(NULL, sizeof(**state), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	result = memory == MAP_FAILED ? NVML_ERROR_OPERATING_SYSTEM : check(fd, memory);
	close(fd);
	if (result == NVML_SUCCESS)
		*state = memory;
	else if (memory != MAP_FAILED)
		munmap(memory, sizeof(**state));
	return result;
}

void emu_state_unmap(struct emu_state *state)
{
	munmap(state, sizeof(*state));
}

int emu_lock(struct emu_node *node)
{
	struct timespec deadline;
	int error;

	clock_gettime(CLOCK_MONOTONIC, &deadline);
	deadline.tv_sec += LOCK_PATIENCE_S;
	error = pthread_mutex_clocklock(&node->state->mutex, CLOCK_MONOTONIC, &deadline);
	if (error == EOWNERDEAD) /* the holder was killed: at worst one GPU's last step counts in part */
		error = pthread_mutex_consistent(&node->state->mutex);
	if (error == ETIMEDOUT)
		return NVML_ERROR_TIMEOUT;
	return error ? NVML_ERROR_OPERATING_SYSTEM : NVML_SUCCESS;
}

void emu_unlock(struct emu_node *node)
{
	pthread_mutex_unlock(&node->state->mutex);
}

/* Bring one GPU up to now. Call with the lock held. */
void emu_advance(struct emu_node *node, struct emu_gpu *gpu)
{
	int64_t real_ns = emu_boottime_ns();
	int64_t now_ns = real_ns + node->state->clock_offset_ns;
	struct emu_gpu moved = *gpu;

	if (now_ns > moved.integrated_to_ns)
		emu_integrate(&moved, (double)(now_ns - moved.integrated_to_ns) / 1e9);
	moved.integrated_to_ns = now_ns;
	if (real_ns - moved.looked_at_ns >= LOOK_AT_PROCESSES_EVERY_NS) {
		emu_drop_dead_loads(&moved);
		moved.looked_at_ns = real_ns;
		emu_settle(&moved);
	}
	*gpu = moved; /* one copy at the end: a killed holder leaves nearly always the old or the new state */
}
