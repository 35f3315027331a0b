/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The state file: made whole, mapped shared, locked so that a killed holder blocks nobody. */
#ifndef SLURM_POWER_EMULATOR_STATE_H
#define SLURM_POWER_EMULATOR_STATE_H

#include "emulator.h"

int emu_state_write(const char *path, const struct emu_state *state);
int emu_state_map(const char *path, struct emu_state **state);
void emu_state_unmap(struct emu_state *state);
int emu_state_init_mutex(struct emu_state *state);
int64_t emu_boottime_ns(void);
void emu_boot_id(char *boot_id, unsigned size);

#endif
