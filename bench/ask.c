/* ask.c - asks an API over its unix socket at a steady rate, and has its stream open as a console has: the load of bench/api.py.
 *   cc -O2 -o ask ask.c
 *   ask SOCKET RATE STREAM PATH...
 * STREAM is the path of server-sent events, or "-" for none. Requests go round the paths, each over a connection that is kept
 * (RFC 9112 §9.3) and has no other request under way. It asks until its stdin ends, and then prints a line of JSON: how many
 * requests were answered, the microseconds of CPU that this program took for each, and how long they took from when they were
 * due, so that those which had to wait for a connection are not made to look quick.
 * It is written so that it costs little: it runs on the machine that is measured. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS 8
#define ROOM (1u << 20)        /* the longest answer */
#define MOST (1u << 20)        /* requests whose times are kept */

struct connection { int s; double due; size_t have, need; char *in; };  /* due: 0 while idle; need: 0 until the head is there */

static struct connection all[CONNECTIONS];
static float *taken; static unsigned answered;

static void die(const char *why, ...)
{
	va_list a; va_start(a, why); vfprintf(stderr, why, a); va_end(a); fputc('\n', stderr); exit(1);
}
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec / 1e9; }

static int connect_to(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int s = socket(AF_UNIX, SOCK_STREAM, 0);
	if (strlen(path) >= sizeof a.sun_path) die("%s: too long for a unix socket", path);
	strcpy(a.sun_path, path);
	if (s < 0 || connect(s, (struct sockaddr *)&a, sizeof a)) die("%s: %s", path, strerror(errno));
	return s;
}

static void ask(int s, const char *path)
{
	char text[1024];
	int n = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: local\r\n\r\n", path);
	if (send(s, text, n, 0) != n) die("a request could not be sent: %s", strerror(errno));
}

static void take(struct connection *c)
{
	ssize_t n = recv(c->s, c->in + c->have, ROOM - c->have, 0);
	if (n <= 0) die("a connection was closed in the midst of an answer");
	c->in[c->have += n] = 0;
	if (!c->need) {
		char *end = strstr(c->in, "\r\n\r\n"), *length = strcasestr(c->in, "content-length:");
		if (!end) return;
		if (strncmp(c->in, "HTTP/1.1 200 ", 13) || !length || length > end) die("not such an answer: %.300s", c->in);
		c->need = end + 4 - c->in + strtoul(length + 15, NULL, 10);
	}
	if (c->have < c->need) return;
	if (answered < MOST) taken[answered] = now() - c->due;
	answered++, c->due = c->have = c->need = 0;
}

static int later(const void *a, const void *b) { float x = *(float *)a, y = *(float *)b; return (x > y) - (x < y); }

static void report(void)
{
	struct rusage u; getrusage(RUSAGE_SELF, &u);
	double cpu = u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
	unsigned n = answered < MOST ? answered : MOST;
	if (!n) die("nothing was answered");
	qsort(taken, n, sizeof *taken, later);
	printf("{\"answered\": %u, \"cpu\": %.1f, \"p50\": %.3f, \"p99\": %.3f, \"max\": %.3f}\n", answered,
	       cpu / answered * 1e6, taken[n / 2] * 1e3, taken[n * 99ul / 100] * 1e3, taken[n - 1] * 1e3);
}

int main(int argc, char **argv)
{
	static char dropped[1 << 16];
	struct pollfd p[CONNECTIONS + 2] = {{ 0 }};
	unsigned next = 0, i;
	if (argc < 5) die("usage: ask SOCKET RATE STREAM PATH...");
	double interval = 1 / atof(argv[2]), due;
	taken = malloc(MOST * sizeof *taken);
	for (i = 0; i < CONNECTIONS; i++) {
		all[i].s = connect_to(argv[1]), all[i].in = malloc(ROOM + 1);
		p[i] = (struct pollfd){ all[i].s, POLLIN, 0 };
	}
	p[CONNECTIONS] = (struct pollfd){ 0, POLLIN, 0 };
	p[CONNECTIONS + 1] = (struct pollfd){ -1, POLLIN, 0 };
	if (strcmp(argv[3], "-")) ask(p[CONNECTIONS + 1].fd = connect_to(argv[1]), argv[3]);
	for (due = now();;) {
		for (i = 0; i < CONNECTIONS && now() >= due; i++)
			if (!all[i].due) all[i].due = due, due += interval, ask(all[i].s, argv[4 + next++ % (argc - 4)]);
		double left = i < CONNECTIONS ? due - now() : 1;  /* none is idle: wait for an answer */
		struct timespec t = { 0, left > 0 ? (left < 0.9 ? left : 0.9) * 1e9 : 0 };
		if (ppoll(p, CONNECTIONS + 2, &t, NULL) < 0) die("ppoll: %s", strerror(errno));
		for (i = 0; i < CONNECTIONS; i++) if (p[i].revents) take(&all[i]);
		if (p[CONNECTIONS + 1].revents && recv(p[CONNECTIONS + 1].fd, dropped, sizeof dropped, 0) <= 0) die("the stream has ended");
		if (p[CONNECTIONS].revents) break;
	}
	report();
	return 0;
}
