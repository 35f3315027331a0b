// SPDX-License-Identifier: GPL-2.0-or-later
/* Writes one flat-ish JSON object into a fixed buffer. Output is ASCII whatever the input is. */
#ifndef SLURM_POWER_JSON_H
#define SLURM_POWER_JSON_H

#include <stdbool.h>
#include <stddef.h>

struct json {
	char *text;
	size_t size;
	size_t length;
	bool overflow; /* the object did not fit and must not be sent */
	bool needs_comma;
};

void json_begin(struct json *json, char *buffer, size_t size);
void json_open(struct json *json, const char *key); /* key NULL: the outermost object */
void json_close(struct json *json);
void json_string(struct json *json, const char *key, const char *value);
void json_unsigned(struct json *json, const char *key, unsigned long value);

/* Close the line; false if it did not fit. */
bool json_end_line(struct json *json);

#endif
