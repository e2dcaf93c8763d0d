/* answer.c - answers whatever comes on a unix socket with so many bytes: what bench/ask.c and the kernel cost by themselves.
 *   cc -O2 -o answer answer.c
 *   answer SOCKET BYTES
 * Each request has to come as a whole, as ask.c sends them. It runs as SCHED_BATCH, as control does. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define MOST 64  /* events at a time */

static void die(const char *what) { perror(what); exit(1); }

static void watch(int all, int s)
{
	struct epoll_event e = { EPOLLIN, { .fd = s } };
	if (s < 0 || epoll_ctl(all, EPOLL_CTL_ADD, s, &e)) die("epoll_ctl");
}

int main(int argc, char **argv)
{
	static char in[1 << 16];
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct epoll_event events[MOST];
	struct sched_param none = { 0 };
	if (argc != 3 || strlen(argv[1]) >= sizeof a.sun_path) { fprintf(stderr, "usage: answer SOCKET BYTES\n"); return 1; }
	strcpy(a.sun_path, argv[1]);
	sched_setscheduler(0, SCHED_BATCH, &none);
	size_t bytes = strtoul(argv[2], NULL, 10);
	char *answer = malloc(bytes + 200);
	int head = sprintf(answer, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n", bytes);
	memset(answer + head, ' ', bytes);
	int s = socket(AF_UNIX, SOCK_STREAM, 0), all = epoll_create1(0);
	if (s < 0 || bind(s, (struct sockaddr *)&a, sizeof a) || listen(s, MOST)) die(argv[1]);
	watch(all, s);
	for (;;) {
		int n = epoll_wait(all, events, MOST, -1);
		if (n < 0 && errno != EINTR) die("epoll_wait");
		for (int i = 0; i < n; i++) {
			int from = events[i].data.fd;
			if (from == s) watch(all, accept(s, NULL, NULL));
			else if (recv(from, in, sizeof in, 0) <= 0) close(from);
			else send(from, answer, head + bytes, MSG_NOSIGNAL);
		}
	}
}
