/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which of the processes that hold a load still live: proc(5), /proc/<pid>/stat. */
#include "emulator.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* 0, or the errno of opening the file; ENOENT and ESRCH mean that there is no such process. */
int emu_process_start(int pid, uint64_t *start_ticks, char *run_state)
{
	char path[32], line[1024];
	unsigned long long ticks = 0;
	const char *after_name;
	FILE *file;
	size_t length;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	file = fopen(path, "re");
	if (!file)
		return errno;
	length = fread(line, 1, sizeof(line) - 1, file);
	fclose(file);
	line[length] = '\0';
	after_name = strrchr(line, ')'); /* the name may hold spaces and brackets */
	if (!after_name || sscanf(after_name + 1,
				  " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu",
				  run_state, &ticks) != 2)
		return ESRCH;
	*start_ticks = ticks;
	return 0;
}

static int holder_lives(struct emu_load *load)
{
	uint64_t start_ticks = 0;
	char run_state = 'R';
	int error = emu_process_start(load->pid, &start_ticks, &run_state);

	if (error)
		return error != ENOENT && error != ESRCH; /* cannot tell: let it live */
	load->stopped = run_state == 'T' || run_state == 't';
	return start_ticks == load->pid_start_ticks && run_state != 'Z' && run_state != 'X';
}

void emu_drop_dead_loads(struct emu_gpu *gpu)
{
	for (unsigned i = 0; i < EMU_MAX_LOADS; i++)
		if (gpu->loads[i].pid && !holder_lives(&gpu->loads[i]))
			gpu->loads[i] = (struct emu_load){0};
}
