// SPDX-License-Identifier: GPL-2.0-or-later
#include "json.h"

#include <stdio.h>
#include <string.h>

static void put(struct json *json, const char *text, size_t length)
{
	if (json->overflow || length >= json->size - json->length) {
		json->overflow = true;
		return;
	}
	memcpy(json->text + json->length, text, length);
	json->length += length;
	json->text[json->length] = '\0';
}

static void put_quoted(struct json *json, const char *value)
{
	char escape[8];

	put(json, "\"", 1);
	for (; *value; value++) {
		unsigned char byte = (unsigned char)*value;

		if (byte == '"' || byte == '\\') {
			snprintf(escape, sizeof(escape), "\\%c", byte);
		} else if (byte < 0x20 || byte >= 0x7f) {
			/* Bytes beyond ASCII travel as Latin-1: never invalid UTF-8, never a raw control. */
			snprintf(escape, sizeof(escape), "\\u%04x", byte);
		} else {
			snprintf(escape, sizeof(escape), "%c", byte);
		}
		put(json, escape, strlen(escape));
	}
	put(json, "\"", 1);
}

static void put_key(struct json *json, const char *key)
{
	if (json->needs_comma)
		put(json, ",", 1);
	json->needs_comma = true;
	if (key) {
		put_quoted(json, key);
		put(json, ":", 1);
	}
}

void json_begin(struct json *json, char *buffer, size_t size)
{
	*json = (struct json){ .text = buffer, .size = size };
	buffer[0] = '\0';
}

void json_open(struct json *json, const char *key)
{
	put_key(json, key);
	put(json, "{", 1);
	json->needs_comma = false;
}

void json_close(struct json *json)
{
	put(json, "}", 1);
	json->needs_comma = true;
}

void json_string(struct json *json, const char *key, const char *value)
{
	put_key(json, key);
	put_quoted(json, value);
}

void json_unsigned(struct json *json, const char *key, unsigned long value)
{
	char digits[24];

	put_key(json, key);
	snprintf(digits, sizeof(digits), "%lu", value);
	put(json, digits, strlen(digits));
}

bool json_end_line(struct json *json)
{
	put(json, "\n", 1);
	return !json->overflow;
}
