// SPDX-License-Identifier: GPL-2.0-or-later
#include "messages.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

#include "agent_client.h"
#include "json.h"

#define LINE_BYTES 8192

void report_problem(const char *format, ...)
{
	char text[400];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	/* slurmstepd copies errors into the job's own output, where they would only puzzle the user. */
	if (spank_context() == S_CTX_REMOTE)
		slurm_info("slurm_power: %s", text);
	else
		slurm_error("slurm_power: %s", text);
}

static void deliver(const struct settings *settings, const char *op, const char *node, unsigned long job_id,
		    struct json *json)
{
	char path[SETTINGS_PATH_BYTES], problem[256];

	if (!json_end_line(json)) {
		report_problem("job %lu: %s not sent: the environment is too long for one line", job_id, op);
		return;
	}
	if (!settings_socket_path(settings, node, path, sizeof(path))) {
		report_problem("job %lu: %s not sent: agent_socket has no path for this node", job_id, op);
		return;
	}
	if (!agent_tell(path, json->text, settings->deadline_ms, problem, sizeof(problem)))
		report_problem("job %lu: the agent was not told of %s: %s", job_id, op, problem);
}

static void begin_line(struct json *json, char *buffer, const char *op, const char *node, unsigned long job_id)
{
	json_begin(json, buffer, LINE_BYTES);
	json_open(json, NULL);
	json_string(json, "op", op);
	json_unsigned(json, "job_id", job_id);
	json_string(json, "node", node);
}

void tell_begin(const struct settings *settings, const char *op, const char *node, unsigned long job_id,
		unsigned long uid, const char *gpus, const char *visible, const struct option_texts *options)
{
	char buffer[LINE_BYTES];
	struct json json;

	begin_line(&json, buffer, op, node, job_id);
	json_unsigned(&json, "uid", uid);
	json_string(&json, "gpus", gpus ? gpus : "");
	json_string(&json, "visible", visible ? visible : "");
	json_open(&json, "options");
	for (int i = 0; i < OPTION_COUNT; i++) {
		if (options->text[i][0])
			json_string(&json, power_options[i].name, options->text[i]);
	}
	json_close(&json);
	json_close(&json);
	deliver(settings, op, node, job_id, &json);
}

void tell_end(const struct settings *settings, const char *node, unsigned long job_id)
{
	char buffer[LINE_BYTES];
	struct json json;

	begin_line(&json, buffer, "job_end", node, job_id);
	json_close(&json);
	deliver(settings, "job_end", node, job_id, &json);
}
