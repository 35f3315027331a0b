// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE
#include "agent_client.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define ANSWER_BYTES 4096
#define BACKLOG_RETRY_MS 5

struct talk {
	int fd;
	long long end_ms;
	char *problem;
	size_t problem_size;
};

static long long now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int left_ms(const struct talk *talk)
{
	long long left = talk->end_ms - now_ms();

	return left > 0 ? (int)left : 0;
}

/* Always false, so that a failing step can return it. Foreign bytes become '?': they end in a log. */
__attribute__((format(printf, 2, 3))) static bool fail(struct talk *talk, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(talk->problem, talk->problem_size, format, args);
	va_end(args);
	for (char *at = talk->problem; *at; at++) {
		if ((unsigned char)*at < 0x20 || (unsigned char)*at >= 0x7f)
			*at = '?';
	}
	return false;
}

static bool wait_for(struct talk *talk, short events)
{
	for (;;) {
		struct pollfd pollfd = { .fd = talk->fd, .events = events };
		int left = left_ms(talk);
		int ready = left > 0 ? poll(&pollfd, 1, left) : 0;

		if (ready > 0)
			return true;
		if (ready == 0)
			return fail(talk, "no answer in time");
		if (errno != EINTR)
			return fail(talk, "poll: %s", strerror(errno));
	}
}

static bool connect_to(struct talk *talk, const char *socket_path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (strlen(socket_path) >= sizeof(address.sun_path))
		return fail(talk, "%s: path too long for a Unix socket", socket_path);
	strcpy(address.sun_path, socket_path);
	while (connect(talk->fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
		if (errno != EAGAIN && errno != EINTR)
			return fail(talk, "%s: %s", socket_path, strerror(errno));
		/* EAGAIN: the listener's backlog is full; poll() would not tell when it is not: unix(7). */
		if (left_ms(talk) == 0)
			return fail(talk, "%s: not accepted in time", socket_path);
		poll(NULL, 0, BACKLOG_RETRY_MS);
	}
	return true;
}

static bool send_line(struct talk *talk, const char *line)
{
	size_t left = strlen(line);

	while (left > 0) {
		ssize_t sent = send(talk->fd, line, left, MSG_NOSIGNAL);

		if (sent > 0) {
			line += sent;
			left -= (size_t)sent;
		} else if (sent < 0 && errno == EAGAIN) {
			if (!wait_for(talk, POLLOUT))
				return false;
		} else if (sent < 0 && errno != EINTR) {
			return fail(talk, "send: %s", strerror(errno));
		}
	}
	return true;
}

static bool receive_line(struct talk *talk, char *answer, size_t size)
{
	size_t length = 0;

	while (length < size - 1) {
		if (!wait_for(talk, POLLIN))
			return false;
		ssize_t got = recv(talk->fd, answer + length, size - 1 - length, 0);

		if (got == 0)
			return fail(talk, "closed without an answer");
		if (got < 0 && errno != EAGAIN && errno != EINTR)
			return fail(talk, "receive: %s", strerror(errno));
		if (got < 0)
			continue;
		char *end = memchr(answer + length, '\n', (size_t)got);

		length += (size_t)got;
		if (end) {
			*end = '\0';
			return true;
		}
	}
	return fail(talk, "answer too long");
}

/* Not a JSON parser: the agent writes `{"ok": true, ...}` with `ok` first, and anything else is a refusal. */
static bool says_ok(const char *answer)
{
	static const char *const wanted[] = { "{", "\"ok\"", ":", "true" };

	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		answer += strspn(answer, " \t");
		if (strncmp(answer, wanted[i], strlen(wanted[i])) != 0)
			return false;
		answer += strlen(wanted[i]);
	}
	answer += strspn(answer, " \t");
	return *answer == ',' || *answer == '}';
}

static bool converse(struct talk *talk, const char *socket_path, const char *line)
{
	char answer[ANSWER_BYTES];

	if (!connect_to(talk, socket_path) || !send_line(talk, line) ||
	    !receive_line(talk, answer, sizeof(answer)))
		return false;
	if (!says_ok(answer))
		return fail(talk, "refused: %.120s", answer);
	return true;
}

bool agent_tell(const char *socket_path, const char *line, long deadline_ms, char *problem, size_t problem_size)
{
	struct talk talk = {
		.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0),
		.end_ms = now_ms() + deadline_ms,
		.problem = problem,
		.problem_size = problem_size,
	};
	bool told;

	problem[0] = '\0';
	if (talk.fd < 0)
		return fail(&talk, "socket: %s", strerror(errno));
	told = converse(&talk, socket_path, line);
	close(talk.fd);
	return told;
}
