// SPDX-License-Identifier: GPL-2.0-or-later
/* What the administrator wrote after the plugin's name in plugstack.conf. No Slurm headers. */
#ifndef SLURM_POWER_SETTINGS_H
#define SLURM_POWER_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>

#define SETTINGS_PATH_BYTES 256

struct settings {
	long min_cap_watts, max_cap_watts; /* what the boards of this cluster allow */
	long min_clock_mhz, max_clock_mhz;
	long deadline_ms;                  /* for the whole talk with the agent */
	char agent_socket[SETTINGS_PATH_BYTES]; /* %n: the node's name */
};

/* Defaults, then every `key=value` of argv. Returns the first argument it could not read (and skipped), or NULL. */
const char *settings_read(struct settings *settings, int argc, char **argv);

/* The socket's path on `node`; false if the name could lead elsewhere or the path is too long. */
bool settings_socket_path(const struct settings *settings, const char *node, char *path, size_t size);

#endif
