// SPDX-License-Identifier: GPL-2.0-or-later
/* In srun, sbatch and salloc, as the user: bad values stop the submission here, where the user sees why. */
#include "contexts.h"
#include "options.h"

void submit_init(spank_t sp, int argc, char **argv)
{
	struct settings settings;
	const char *unread = settings_read(&settings, argc, argv);

	if (unread)
		slurm_error("slurm_power: plugstack.conf: %s: not a setting of this plugin; ignored", unread);
	options_register(sp, &settings);
	options_from_environment();
}
