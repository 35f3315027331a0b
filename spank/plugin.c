// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Entry points only: each Slurm context has its own file. All of them return 0: a bad option ends a submission
 * through the option's callback (options.c), and on a node a non-zero answer would drain it: spank(8), "Errors".
 */
#include "contexts.h"

#pragma GCC visibility push(default)

SPANK_PLUGIN(slurm_power, 1)

int slurm_spank_init(spank_t sp, int argc, char **argv)
{
	switch (spank_context()) {
	case S_CTX_LOCAL:
	case S_CTX_ALLOCATOR:
		submit_init(sp, argc, argv);
		return 0;
	case S_CTX_REMOTE:
		stepd_init(sp, argc, argv);
		return 0;
	default:
		return 0;
	}
}

int slurm_spank_task_init_privileged(spank_t sp, int argc, char **argv)
{
	stepd_task_begin(sp, argc, argv);
	return 0;
}

int slurm_spank_job_prolog(spank_t sp, int argc, char **argv)
{
	job_script_prolog(sp, argc, argv);
	return 0;
}

int slurm_spank_job_epilog(spank_t sp, int argc, char **argv)
{
	job_script_epilog(sp, argc, argv);
	return 0;
}

#pragma GCC visibility pop
