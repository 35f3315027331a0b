/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What every nvml* function does first and last. */
#ifndef SLURM_POWER_NVML_SESSION_H
#define SLURM_POWER_NVML_SESSION_H

#include "emulator.h"
#include "nvml_types.h"

#define NVML_API __attribute__((visibility("default")))

/* Enter: check library, arguments, handle and fault; lock the node; bring the GPU up to now. */
nvmlReturn_t session_enter(nvmlDevice_t device, int arguments_good, struct emu_gpu **gpu);
/* As session_enter, for setters: also needs effective uid 0. */
nvmlReturn_t session_enter_as_root(nvmlDevice_t device, int arguments_good, struct emu_gpu **gpu);
/* Leave: draw and clock follow what was set; unlock. Returns `result`. */
nvmlReturn_t session_leave(struct emu_gpu *gpu, nvmlReturn_t result);

/* Copy text into a caller's buffer of `length` bytes. */
nvmlReturn_t session_text(char *buffer, unsigned length, const char *text);

#endif
