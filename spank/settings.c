// SPDX-License-Identifier: GPL-2.0-or-later
#include "settings.h"

#include <string.h>

#include "parse.h"

#define MAX_DEADLINE_MS 900

static const struct settings defaults = {
	.min_cap_watts = 200,
	.max_cap_watts = 700,
	.min_clock_mhz = 345,
	.max_clock_mhz = 1980,
	.deadline_ms = 200,
	.agent_socket = "/run/slurm-power/agent.sock",
};

static bool read_number(const char *argument, const char *key, long *out)
{
	size_t length = strlen(key);

	return strncmp(argument, key, length) == 0 && parse_unsigned(argument + length, out);
}

static bool read_deadline(const char *argument, long *out_ms)
{
	long deadline_ms;

	if (!read_number(argument, "deadline_ms=", &deadline_ms) || deadline_ms < 1 || deadline_ms > MAX_DEADLINE_MS)
		return false;
	*out_ms = deadline_ms;
	return true;
}

static bool read_socket(const char *argument, char *out)
{
	static const char key[] = "agent_socket=";
	const char *path = argument + sizeof(key) - 1;

	if (strncmp(argument, key, sizeof(key) - 1) != 0 || path[0] != '/' || strlen(path) >= SETTINGS_PATH_BYTES)
		return false;
	strcpy(out, path);
	return true;
}

static bool read_argument(struct settings *settings, const char *argument)
{
	return read_number(argument, "min_cap=", &settings->min_cap_watts) ||
	       read_number(argument, "max_cap=", &settings->max_cap_watts) ||
	       read_number(argument, "min_clock=", &settings->min_clock_mhz) ||
	       read_number(argument, "max_clock=", &settings->max_clock_mhz) ||
	       read_deadline(argument, &settings->deadline_ms) ||
	       read_socket(argument, settings->agent_socket);
}

const char *settings_read(struct settings *settings, int argc, char **argv)
{
	const char *unread = NULL;

	*settings = defaults;
	for (int i = 0; i < argc; i++) {
		if (!read_argument(settings, argv[i]) && !unread)
			unread = argv[i];
	}
	return unread;
}

/* A node's name never holds '/', so that it cannot lead the path elsewhere. */
static bool is_node_name(const char *node)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

	return node[0] != '\0' && node[0] != '.' && node[strspn(node, allowed)] == '\0';
}

bool settings_socket_path(const struct settings *settings, const char *node, char *path, size_t size)
{
	size_t length = 0;

	if (strstr(settings->agent_socket, "%n") && !is_node_name(node))
		return false;
	for (const char *at = settings->agent_socket; *at; at++) {
		bool is_name = at[0] == '%' && at[1] == 'n';
		size_t piece = is_name ? strlen(node) : 1;

		if (length + piece >= size)
			return false;
		memcpy(path + length, is_name ? node : at, piece);
		length += piece;
		at += is_name;
	}
	path[length] = '\0';
	return true;
}
