// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE
#include "options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "messages.h"
#include "parse.h"

enum option_number { GPU_POWER_CAP, GPU_CLOCK, POWER_CLASS, POWER_MAX_SLOWDOWN, POWER_MAX_DELAY };

static int check_option(int number, const char *text, int remote);

struct spank_option power_options[OPTION_COUNT] = {
	{ "gpu-power-cap", "W", "Limit each GPU of the job to this many watts, as in 300 or 300W.", 1,
	  GPU_POWER_CAP, check_option },
	{ "gpu-clock", "MHz", "Limit the clock of each GPU of the job to this many MHz.", 1,
	  GPU_CLOCK, check_option },
	{ "power-class", "firm|flexible|preemptible",
	  "What may be done to the job when power is short: nothing; delay and slow down; requeue as well.", 1,
	  POWER_CLASS, check_option },
	{ "power-max-slowdown", "fraction", "Throughput that may be lost to power caps, from 0 to 0.9.", 1,
	  POWER_MAX_SLOWDOWN, check_option },
	{ "power-max-delay", "time", "How long the job may be held back when power is short (Slurm time format).", 1,
	  POWER_MAX_DELAY, check_option },
};

/* Our variable, the one through which Slurm itself sets an option, and which of them this process was started with. */
static struct {
	const char *ours, *slurms;
	const char *used;
	char text[OPTION_TEXT_BYTES];
} environment[OPTION_COUNT] = {
	{ .ours = "SLURM_POWER_GPU_CAP", .slurms = "SLURM_SPANK__SLURM_SPANK_OPTION_slurm_power_gpu_power_cap" },
	{ .ours = "SLURM_POWER_GPU_CLOCK", .slurms = "SLURM_SPANK__SLURM_SPANK_OPTION_slurm_power_gpu_clock" },
	{ .ours = "SLURM_POWER_CLASS", .slurms = "SLURM_SPANK__SLURM_SPANK_OPTION_slurm_power_power_class" },
	{ .ours = "SLURM_POWER_MAX_SLOWDOWN",
	  .slurms = "SLURM_SPANK__SLURM_SPANK_OPTION_slurm_power_power_max_slowdown" },
	{ .ours = "SLURM_POWER_MAX_DELAY",
	  .slurms = "SLURM_SPANK__SLURM_SPANK_OPTION_slurm_power_power_max_delay" },
};

static struct settings limits;

typedef bool (*number_parser)(const char *text, long *out);

static bool is_number_within(const char *text, number_parser parse, long lowest, long highest)
{
	long value;

	return parse(text, &value) && value >= lowest && value <= highest;
}

static bool is_valid(int number, const char *text, const struct settings *settings)
{
	enum power_class power_class;
	long value;

	if (!text || strlen(text) >= OPTION_TEXT_BYTES)
		return false;
	switch (number) {
	case GPU_POWER_CAP:
		return is_number_within(text, parse_watts, settings->min_cap_watts, settings->max_cap_watts);
	case GPU_CLOCK:
		return is_number_within(text, parse_mhz, settings->min_clock_mhz, settings->max_clock_mhz);
	case POWER_CLASS:
		return parse_power_class(text, &power_class);
	case POWER_MAX_SLOWDOWN:
		return parse_slowdown(text, &value);
	case POWER_MAX_DELAY:
		return parse_delay(text, &value);
	default:
		return false;
	}
}

static void describe_rule(int number, char *rule, size_t size)
{
	switch (number) {
	case GPU_POWER_CAP:
		snprintf(rule, size, "must be whole watts from %ld to %ld, as in %ld or %ldW", limits.min_cap_watts,
			 limits.max_cap_watts, limits.min_cap_watts, limits.min_cap_watts);
		return;
	case GPU_CLOCK:
		snprintf(rule, size, "must be whole MHz from %ld to %ld", limits.min_clock_mhz, limits.max_clock_mhz);
		return;
	case POWER_CLASS:
		snprintf(rule, size, "must be firm, flexible or preemptible");
		return;
	case POWER_MAX_SLOWDOWN:
		snprintf(rule, size, "must be a fraction from 0 to 0.9 with at most 6 decimals, as in 0.25");
		return;
	default:
		snprintf(rule, size, "must be minutes, mm:ss, hh:mm:ss, d-hh, d-hh:mm or d-hh:mm:ss, from 0 to %ld days",
			 MAX_DELAY_S / 86400);
	}
}

/* Users' text on its way to a terminal or a log. */
static void printable(const char *text, char *out, size_t size)
{
	size_t length = 0;

	for (; text && *text && length < size - 1; text++)
		out[length++] = (unsigned char)*text < 0x20 || (unsigned char)*text >= 0x7f ? '?' : *text;
	out[length] = '\0';
}

static void explain(int number, const char *text)
{
	char shown[80], rule[160];
	bool from_environment = environment[number].used && strncmp(text, environment[number].text,
								    OPTION_TEXT_BYTES - 1) == 0;

	printable(text, shown, sizeof(shown));
	describe_rule(number, rule, sizeof(rule));
	if (from_environment)
		slurm_error("%s=%s (environment default of --%s): %s", environment[number].used, shown,
			    power_options[number].name, rule);
	else
		slurm_error("--%s=%s: %s", power_options[number].name, shown, rule);
}

/* Slurm calls this at once for each option it meets; a negative answer ends sbatch, srun or salloc. */
static int check_option(int number, const char *text, int remote)
{
	if (remote || number < 0 || number >= OPTION_COUNT || is_valid(number, text, &limits))
		return 0; /* on the node nothing may fail: options_collect() drops what it cannot use */
	explain(number, text ? text : "");
	return -1;
}

void options_register(spank_t sp, const struct settings *settings)
{
	limits = *settings;
	for (int i = 0; i < OPTION_COUNT; i++) {
		if (spank_option_register(sp, &power_options[i]) != ESPANK_SUCCESS)
			slurm_error("slurm_power: cannot register --%s", power_options[i].name);
	}
}

void options_from_environment(void)
{
	for (int i = 0; i < OPTION_COUNT; i++) {
		const char *text = getenv(environment[i].slurms);

		environment[i].used = environment[i].slurms;
		if (!text) {
			environment[i].used = environment[i].ours;
			text = getenv(environment[i].ours);
			if (text)
				setenv(environment[i].slurms, text, 1);
		}
		if (text)
			snprintf(environment[i].text, sizeof(environment[i].text), "%s", text);
		else
			environment[i].used = NULL;
	}
}

void options_collect(spank_t sp, const struct settings *settings, struct option_texts *out)
{
	for (int i = 0; i < OPTION_COUNT; i++) {
		char *text = NULL;
		char shown[80];

		out->text[i][0] = '\0';
		if (spank_option_getopt(sp, &power_options[i], &text) != ESPANK_SUCCESS || !text)
			continue;
		if (is_valid(i, text, settings)) {
			strcpy(out->text[i], text);
			continue;
		}
		printable(text, shown, sizeof(shown));
		report_problem("ignored --%s=%s, which is not valid on this node", power_options[i].name, shown);
	}
}
