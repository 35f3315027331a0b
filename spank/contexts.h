// SPDX-License-Identifier: GPL-2.0-or-later
/* What plugin.c calls: one function per Slurm context and event. */
#ifndef SLURM_POWER_CONTEXTS_H
#define SLURM_POWER_CONTEXTS_H

#include <slurm/spank.h>

/* srun, sbatch, salloc: submit.c */
void submit_init(spank_t sp, int argc, char **argv);

/* slurmstepd: stepd.c */
void stepd_init(spank_t sp, int argc, char **argv);
void stepd_task_begin(spank_t sp, int argc, char **argv);

/* slurmd's prolog and epilog, each in a fresh process: job_script.c */
void job_script_prolog(spank_t sp, int argc, char **argv);
void job_script_epilog(spank_t sp, int argc, char **argv);

#endif
