// SPDX-License-Identifier: GPL-2.0-or-later
/* In slurmd's prolog and epilog, as root, in a fresh process each time (slurm_spank_init is not called there). */
#include <stdint.h>
#include <stdlib.h>

#include "contexts.h"
#include "messages.h"

static const char *node_name(void)
{
	const char *node = getenv("SLURMD_NODENAME");

	return node ? node : "";
}

static void read_settings(struct settings *settings, int argc, char **argv)
{
	const char *unread = settings_read(settings, argc, argv);

	if (unread)
		report_problem("plugstack.conf: %s: not a setting of this plugin; ignored", unread);
}

void job_script_prolog(spank_t sp, int argc, char **argv)
{
	struct settings settings;
	struct option_texts options;
	uint32_t job_id;
	uid_t uid;

	read_settings(&settings, argc, argv);
	if (spank_get_item(sp, S_JOB_ID, &job_id) != ESPANK_SUCCESS ||
	    spank_get_item(sp, S_JOB_UID, &uid) != ESPANK_SUCCESS) {
		report_problem("no job id in the prolog; the agent was not told");
		return;
	}
	options_collect(sp, &settings, &options);
	tell_begin(&settings, "job_begin", node_name(), job_id, uid, getenv("SLURM_JOB_GPUS"),
		   getenv("CUDA_VISIBLE_DEVICES"), &options);
}

void job_script_epilog(spank_t sp, int argc, char **argv)
{
	struct settings settings;
	uint32_t job_id;

	read_settings(&settings, argc, argv);
	if (spank_get_item(sp, S_JOB_ID, &job_id) != ESPANK_SUCCESS) {
		report_problem("no job id in the epilog; the agent was not told");
		return;
	}
	tell_end(&settings, node_name(), job_id);
}
