// SPDX-License-Identifier: GPL-2.0-or-later
/* The options users may give to sbatch, srun and salloc: their names, their rules, their values. */
#ifndef SLURM_POWER_OPTIONS_H
#define SLURM_POWER_OPTIONS_H

#include <slurm/spank.h>

#include "settings.h"

#define OPTION_COUNT 5
#define OPTION_TEXT_BYTES 64

/* The same order as slurm_power.gpu.wire.OPTIONS; a test compares them. */
extern struct spank_option power_options[OPTION_COUNT];

/* Texts as the user typed them, each already valid; "" is an option that was not given. */
struct option_texts {
	char text[OPTION_COUNT][OPTION_TEXT_BYTES];
};

/* Every context has to register them: a static table is not seen by sbatch and salloc. */
void options_register(spank_t sp, const struct settings *settings);

/* Let the SLURM_POWER_* variables act as options that the command line may override. */
void options_from_environment(void);

/* What the user gave, read again on the node: what came here may have bypassed the submission's check. */
void options_collect(spank_t sp, const struct settings *settings, struct option_texts *out);

#endif
