// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Strict readers of what users type. No Slurm headers, no locale, no allocation: plain cc can test them.
 * Each returns true and sets *out only if the whole text is a value; no sign, no blank, no trailing junk.
 */
#ifndef SLURM_POWER_PARSE_H
#define SLURM_POWER_PARSE_H

#include <stdbool.h>

enum power_class { POWER_CLASS_FIRM, POWER_CLASS_FLEXIBLE, POWER_CLASS_PREEMPTIBLE };

#define MAX_SLOWDOWN_MILLIONTHS 900000
#define MAX_DELAY_S (366L * 24 * 3600)

/* At most nine decimal digits: no overflow is possible. */
bool parse_unsigned(const char *text, long *out);

/* "300" or "300W". */
bool parse_watts(const char *text, long *out_watts);

/* "1200". */
bool parse_mhz(const char *text, long *out_mhz);

/* "firm", "flexible" or "preemptible". */
bool parse_power_class(const char *text, enum power_class *out);

/* "0" to "0.9", at most six decimals. In millionths, so that no float and no locale is involved. */
bool parse_slowdown(const char *text, long *out_millionths);

/* Slurm's time syntax: m, m:ss, h:mm:ss, d-h, d-h:mm, d-h:mm:ss; from 0 to MAX_DELAY_S. */
bool parse_delay(const char *text, long *out_s);

#endif
