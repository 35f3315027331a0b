// SPDX-License-Identifier: GPL-2.0-or-later
/* In slurmstepd, as root, for each task of a step. Repeats what the prolog said, for an agent that was away then. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include <slurm/slurm.h> /* SLURM_BATCH_SCRIPT */

#include "contexts.h"
#include "messages.h"

#define ENV_BYTES 4096

void stepd_init(spank_t sp, int argc, char **argv)
{
	struct settings settings;

	settings_read(&settings, argc, argv); /* a bad setting is reported in the prolog */
	options_register(sp, &settings);
}

static const char *task_env(spank_t sp, const char *name, char *buffer, int size)
{
	return spank_getenv(sp, name, buffer, size) == ESPANK_SUCCESS ? buffer : "";
}

/*
 * The variable that names this step's GPUs and that slurmstepd itself wrote. Tried on 22.05: a batch step gets
 * SLURM_JOB_GPUS and keeps a SLURM_STEP_GPUS of the user's; srun's steps the other way round; CUDA_VISIBLE_DEVICES
 * is overwritten or removed in both.
 */
static const char *gpus_variable(uint32_t step_id)
{
	return step_id == SLURM_BATCH_SCRIPT ? "SLURM_JOB_GPUS" : "SLURM_STEP_GPUS";
}

static bool is_first_task(spank_t sp)
{
	int task_id;

	return spank_get_item(sp, S_TASK_ID, &task_id) == ESPANK_SUCCESS && task_id == 0;
}

void stepd_task_begin(spank_t sp, int argc, char **argv)
{
	char gpus[ENV_BYTES], visible[ENV_BYTES];
	const char *node = getenv("SLURMD_NODENAME"); /* of slurmstepd; the task's one is the user's to set */
	struct settings settings;
	struct option_texts options;
	uint32_t job_id, step_id;
	uid_t uid;

	/* One message a step and node is enough, and a launch without GPUs pays nothing. */
	if (!is_first_task(sp) || task_env(sp, "CUDA_VISIBLE_DEVICES", visible, sizeof(visible))[0] == '\0')
		return;
	if (spank_get_item(sp, S_JOB_ID, &job_id) != ESPANK_SUCCESS ||
	    spank_get_item(sp, S_JOB_STEPID, &step_id) != ESPANK_SUCCESS ||
	    spank_get_item(sp, S_JOB_UID, &uid) != ESPANK_SUCCESS) {
		report_problem("no job id in task_init_privileged; the agent was not told");
		return;
	}
	settings_read(&settings, argc, argv);
	options_collect(sp, &settings, &options);
	tell_begin(&settings, "task_begin", node ? node : "", job_id, uid,
		   task_env(sp, gpus_variable(step_id), gpus, sizeof(gpus)), visible, &options);
}
