// SPDX-License-Identifier: GPL-2.0-or-later
/* The lines the plugin sends to the agent: see slurm_power/gpu/wire.py. */
#ifndef SLURM_POWER_MESSAGES_H
#define SLURM_POWER_MESSAGES_H

#include "options.h"

/* To the node's log: nothing on a node may fail because of us, and nothing may go unsaid. */
__attribute__((format(printf, 1, 2))) void report_problem(const char *format, ...);

/* job_begin or task_begin. `gpus` and `visible` may be NULL. Failures are logged, never returned. */
void tell_begin(const struct settings *settings, const char *op, const char *node, unsigned long job_id,
		unsigned long uid, const char *gpus, const char *visible, const struct option_texts *options);

/* job_end. */
void tell_end(const struct settings *settings, const char *node, unsigned long job_id);

#endif
