// SPDX-License-Identifier: GPL-2.0-or-later
#include "parse.h"

#include <string.h>

#define MAX_DIGITS 9

/* isdigit() asks the locale; users' text must read the same everywhere. */
static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Read the digits at *cursor and step over them. */
static bool take_digits(const char **cursor, long *out, int *out_count)
{
	const char *at = *cursor;
	long value = 0;

	for (; is_digit(*at); at++) {
		if (at - *cursor >= MAX_DIGITS)
			return false;
		value = value * 10 + (*at - '0');
	}
	*out_count = (int)(at - *cursor);
	*cursor = at;
	*out = value;
	return *out_count > 0;
}

static bool digits_then(const char *text, const char *suffix, long *out)
{
	long value;
	int count;

	if (!text || !take_digits(&text, &value, &count))
		return false;
	if (*text != '\0' && strcmp(text, suffix) != 0)
		return false;
	*out = value;
	return true;
}

bool parse_unsigned(const char *text, long *out)
{
	return digits_then(text, "", out);
}

bool parse_watts(const char *text, long *out_watts)
{
	return digits_then(text, "W", out_watts);
}

bool parse_mhz(const char *text, long *out_mhz)
{
	return digits_then(text, "", out_mhz);
}

bool parse_power_class(const char *text, enum power_class *out)
{
	static const char *const names[] = { "firm", "flexible", "preemptible" };

	for (int i = 0; text && i < 3; i++) {
		if (strcmp(text, names[i]) == 0) {
			*out = (enum power_class)i;
			return true;
		}
	}
	return false;
}

bool parse_slowdown(const char *text, long *out_millionths)
{
	long whole, decimals = 0;
	int count;

	if (!text || !take_digits(&text, &whole, &count) || count != 1 || whole != 0)
		return false;
	if (*text == '.') {
		text++;
		if (!take_digits(&text, &decimals, &count) || count > 6)
			return false;
		for (; count < 6; count++)
			decimals *= 10;
	}
	if (*text != '\0' || decimals > MAX_SLOWDOWN_MILLIONTHS)
		return false;
	*out_millionths = decimals;
	return true;
}

/* Up to `max` numbers with ':' between them, to the end of the text; their count, or 0. */
static int take_clock(const char *text, long *fields, int max)
{
	int count = 0, digits;

	while (count < max && take_digits(&text, &fields[count], &digits)) {
		if (count > 0 && digits > 2)
			return 0;
		count++;
		if (*text == '\0')
			return count;
		if (*text++ != ':')
			return 0;
	}
	return 0;
}

static bool delay_from_days(long days, const char *clock, long *out_s)
{
	long f[3] = { 0, 0, 0 };

	if (!take_clock(clock, f, 3) || f[0] > 23 || f[1] > 59 || f[2] > 59)
		return false;
	*out_s = days * 86400 + f[0] * 3600 + f[1] * 60 + f[2];
	return true;
}

static bool delay_from_clock(const char *clock, long *out_s)
{
	long f[3] = { 0, 0, 0 };
	int count = take_clock(clock, f, 3);

	if (count == 0 || f[1] > 59 || f[2] > 59)
		return false;
	/* One or two fields begin with minutes, three with hours: sbatch(1), --time. */
	*out_s = count == 3 ? f[0] * 3600 + f[1] * 60 + f[2] : f[0] * 60 + f[1];
	return true;
}

bool parse_delay(const char *text, long *out_s)
{
	long delay_s = 0, days;
	const char *rest = text;
	int count;

	if (!text || !take_digits(&rest, &days, &count))
		return false;
	if (!(*rest == '-' ? delay_from_days(days, rest + 1, &delay_s) : delay_from_clock(text, &delay_s)))
		return false;
	if (delay_s > MAX_DELAY_S)
		return false;
	*out_s = delay_s;
	return true;
}
