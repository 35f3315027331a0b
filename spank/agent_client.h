// SPDX-License-Identifier: GPL-2.0-or-later
/* One line to the node agent's Unix socket, one line back, within a deadline. No Slurm headers. */
#ifndef SLURM_POWER_AGENT_CLIENT_H
#define SLURM_POWER_AGENT_CLIENT_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Send `line` (which ends with a newline) and wait for `"ok": true`.
 * Returns before `deadline_ms` have passed whatever the other side does. False: `problem` says why, in printable text.
 */
bool agent_tell(const char *socket_path, const char *line, long deadline_ms, char *problem, size_t problem_size);

#endif
