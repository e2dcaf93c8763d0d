/* load.c - a small iSCSI initiator that loads a target: what iscsi-perf and qemu-img bench do, with header and data
 * digests, which libiscsi cannot negotiate both of, and with idle sessions to weigh.
 *   cc -O2 -msse4.2 -o load load.c
 *   load [-w] [-r] [-D] [-g] [-T] [-e] [-d depth] [-s bytes] [-n count] [-t seconds] [-i sessions] iscsi://HOST:PORT/IQN/LUN
 *     -w write (default: read)   -r at random places (default: in sequence)   -D CRC32C for headers and data
 *     -T a tape, in blocks of variable length from its beginning on
 *     -e empty it before: erase the tape, unmap the disk
 *     -n end after so many operations
 *     -g print "ready" once logged in and wait for a byte on stdin, so that several can begin at the same moment
 *     -i log in so many times, print "N sessions", and stay idle until killed
 * One thread, one blocking socket; every command that fits the depth leaves in one send(). What is written is always
 * the same, so its digest is computed once; of what is read, one PDU in 16 is verified: the target is to be the limit.
 * Section numbers are those of RFC 7143. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#ifdef __SSE4_2__
#include <nmmintrin.h>
#endif

#define BLOCK 512u
#define SEGMENT 262144u  /* MaxRecvDataSegmentLength that we declare */
#define DEPTH 256
#define RECEIVE (4u << 20)

static char host[256], target[256]; static int port = 3260; static unsigned lun;
static int o_write, o_random, o_digest, o_wait, o_tape, o_empty;
static unsigned o_depth = 32, o_size = 4096, o_seconds = 3, o_idle; static unsigned long long o_count = ~0ull;

struct session {
	int s; uint32_t cmdsn, expstatsn, maxcmdsn, itt;
	uint32_t segment, firstburst; int immediate, digest;    /* the target's MaxRecvDataSegmentLength and what was agreed */
	uint8_t *in; size_t lo, hi;
	uint8_t *out; size_t n, room;
};

static void die(const char *why, ...)
{
	va_list a; va_start(a, why); vfprintf(stderr, why, a); va_end(a); fputc('\n', stderr); exit(1);
}
static uint32_t g24(const uint8_t *p) { return p[0] << 16 | p[1] << 8 | p[2]; }
static uint32_t g32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return be32toh(v); }

static void p24(uint8_t *p, uint32_t v) { p[0] = v >> 16; p[1] = v >> 8; p[2] = v; }
static void p32(uint8_t *p, uint32_t v) { v = htobe32(v); memcpy(p, &v, 4); }
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec / 1e9; }

static uint32_t crc32c(const uint8_t *p, size_t n)
{
	uint32_t c = ~0u;
#ifdef __SSE4_2__
	uint64_t w, c64 = c;
	for (; n >= 8; n -= 8, p += 8) { memcpy(&w, p, 8); c64 = _mm_crc32_u64(c64, w); }
	for (c = c64; n; n--) c = _mm_crc32_u8(c, *p++);
#else
	static uint32_t table[256];
	if (!table[1]) for (uint32_t i = 0; i < 256; i++) {
		uint32_t v = i; for (int k = 0; k < 8; k++) v = v & 1 ? v >> 1 ^ 0x82f63b78 : v >> 1;
		table[i] = v;
	}
	while (n--) c = table[(c ^ *p++) & 255] ^ c >> 8;
#endif
	return ~c;
}
static void put_crc(uint8_t *p, uint32_t c) { c = htole32(c); memcpy(p, &c, 4); }  /* 13.1: reflected, low byte first */

static uint8_t *pattern; static uint32_t pattern_crc[2]; static size_t pattern_size[2];
static uint32_t data_crc(const uint8_t *p, size_t n)
{
	if (p == pattern) for (int i = 0; i < 2; i++) {
		if (pattern_size[i] == n) return pattern_crc[i];
		if (!pattern_size[i]) { pattern_size[i] = n; return pattern_crc[i] = crc32c(p, n); }
	}
	return crc32c(p, n);
}

static void flush_out(struct session *c)
{
	for (size_t done = 0; done < c->n;) {
		ssize_t r = send(c->s, c->out + done, c->n - done, MSG_NOSIGNAL);
		if (r < 0 && errno != EINTR) die("send: %s", strerror(errno));
		if (r > 0) done += r;
	}
	c->n = 0;
}
/* Append a PDU; `h` is its 48-byte header, whose data segment length is set here. */
static void add(struct session *c, uint8_t *h, const uint8_t *data, uint32_t n)
{
	uint32_t padded = (n + 3) & ~3u;
	if (c->n + 48 + 8 + padded > c->room) flush_out(c);
	p24(h + 5, n); p32(h + 28, c->expstatsn);
	memcpy(c->out + c->n, h, 48); c->n += 48;
	if (c->digest) { put_crc(c->out + c->n, crc32c(h, 48)); c->n += 4; }
	if (!n) return;
	memcpy(c->out + c->n, data, n); memset(c->out + c->n + n, 0, padded - n); c->n += padded;
	if (c->digest) {
		put_crc(c->out + c->n, padded == n ? data_crc(data, n) : crc32c(c->out + c->n - padded, padded)); c->n += 4;
	}
}
/* The next whole PDU; *data points to its data segment of *n bytes. Waits for it. */
static uint8_t *next(struct session *c, uint8_t **data, uint32_t *n)
{
	static unsigned verified;
	size_t digest = c->digest ? 4 : 0;
	for (;;) {
		size_t have = c->hi - c->lo, need = 48 + digest; uint8_t *p = c->in + c->lo;
		if (have >= need) {
			*n = g24(p + 5); *data = p + 48 + p[4] * 4 + digest;
			need += p[4] * 4 + ((*n + 3) & ~3u) + (*n ? digest : 0);
			if (need > RECEIVE) die("a PDU of %zu bytes", need);
		}
		if (have >= need) {
			uint32_t crc, padded = (*n + 3) & ~3u;
			if (digest) {
				memcpy(&crc, *data - 4, 4);
				if (le32toh(crc) != crc32c(p, *data - 4 - p)) die("header digest is wrong");
				memcpy(&crc, *data + padded, *n ? 4 : 0);
				if (*n && verified++ % 16 == 0 && le32toh(crc) != crc32c(*data, padded)) die("data digest is wrong");
			}
			c->lo += need;
			/* StatSN: not in Data-In without status (11.7.4); not used up by R2T (11.8.2) nor by a ping (11.19.1) */
			if (p[0] != 0x31 && (p[0] != 0x25 || p[1] & 1) && (p[0] != 0x20 || g32(p + 16) != ~0u))
				c->expstatsn = g32(p + 24) + 1;
			if ((int32_t)(g32(p + 32) - c->maxcmdsn) > 0) c->maxcmdsn = g32(p + 32);
			return p;
		}
		if (c->lo == c->hi) c->lo = c->hi = 0;
		else if (c->lo + need > RECEIVE) { memmove(c->in, p, have); c->hi = have; c->lo = 0; }
		ssize_t r = recv(c->s, c->in + c->hi, RECEIVE - c->hi, 0);
		if (r == 0) die("the target closed the connection");
		if (r < 0 && errno != EINTR) die("recv: %s", strerror(errno));
		if (r > 0) c->hi += r;
	}
}

static uint32_t text(char *o, uint32_t n, const char *form, ...)
{
	va_list a; va_start(a, form); n += vsprintf(o + n, form, a) + 1; va_end(a); return n;
}
static void agree(struct session *c, char *k, char *end)
{
	for (char *v; k < end; k = v + strlen(v) + 1) {
		if (!(v = strchr(k, '='))) break;
		*v++ = 0;
		if (!strcmp(k, "MaxRecvDataSegmentLength")) c->segment = strtoul(v, NULL, 0);
		else if (!strcmp(k, "FirstBurstLength")) c->firstburst = strtoul(v, NULL, 0);
		else if (!strcmp(k, "ImmediateData")) c->immediate = !strcmp(v, "Yes");
		else if ((!strcmp(k, "HeaderDigest") || !strcmp(k, "DataDigest")) && o_digest && strcmp(v, "CRC32C"))
			die("the target answered %s=%s", k, v);
	}
}
/* One stage of login (11.12, 11.13): what the target says in it is taken as agreed; when it has more to say than it
 * could in its first answer, it is asked for it by an empty request. */
static void login_stage(struct session *c, const uint8_t *isid, int csg, int nsg, const char *keys, uint32_t n)
{
	uint8_t *p, *d; uint32_t m; int tries = 0;
	do {
		uint8_t h[48] = { 0x43, 0x80 | csg << 2 | nsg };
		memcpy(h + 8, isid, 6); p32(h + 16, c->itt); p32(h + 24, c->cmdsn);
		add(c, h, (const uint8_t *)keys, n); flush_out(c);
		n = 0;
		p = next(c, &d, &m);
		if (p[0] != 0x23) die("opcode %#x in login", p[0]);
		if (p[36]) die("login failed with status %#x%02x", p[36], p[37]);
		agree(c, (char *)d, (char *)d + m);
		c->expstatsn = g32(p + 24) + 1; c->maxcmdsn = g32(p + 32);
	} while (!(p[1] & 0x80) && ++tries < 8);
	if (!(p[1] & 0x80)) die("the target does not end the login");
}
static void login(struct session *c, unsigned number)
{
	char k[4096]; uint32_t n = 0, one = 1; const char *digest = o_digest ? "CRC32C" : "None";
	uint8_t isid[6] = { 0x80, getpid() >> 8, getpid(), 0, number >> 8, number };
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };
	if (inet_pton(AF_INET, host, &a.sin_addr) != 1) die("%s is not an IPv4 address", host);
	c->s = socket(AF_INET, SOCK_STREAM, 0); setsockopt(c->s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	if (connect(c->s, (void *)&a, sizeof a)) die("connect: %s", strerror(errno));
	c->in = malloc(RECEIVE); c->room = RECEIVE; c->out = malloc(c->room);
	c->cmdsn = 1; c->segment = 8192; c->firstburst = 65536; c->immediate = 1;
	n = text(k, n, "InitiatorName=iqn.2024-01.test.bench:load"); n = text(k, n, "SessionType=Normal");
	n = text(k, n, "TargetName=%s", target); n = text(k, n, "AuthMethod=None");
	login_stage(c, isid, 0, 1, k, n);
	n = text(k, 0, "HeaderDigest=%s", digest); n = text(k, n, "DataDigest=%s", digest);
	n = text(k, n, "MaxConnections=1"); n = text(k, n, "InitialR2T=No"); n = text(k, n, "ImmediateData=Yes");
	n = text(k, n, "MaxRecvDataSegmentLength=%u", SEGMENT); n = text(k, n, "MaxBurstLength=262144");
	n = text(k, n, "FirstBurstLength=262144"); n = text(k, n, "DefaultTime2Wait=2"); n = text(k, n, "DefaultTime2Retain=0");
	n = text(k, n, "MaxOutstandingR2T=1"); n = text(k, n, "DataPDUInOrder=Yes"); n = text(k, n, "DataSequenceInOrder=Yes");
	n = text(k, n, "ErrorRecoveryLevel=0");
	login_stage(c, isid, 1, 3, k, n);
	c->digest = o_digest;
}

static struct slot { uint32_t itt, done; int busy; } slots[DEPTH];
static void scsi(struct session *c, uint32_t itt, uint8_t flags, uint32_t length, const uint8_t *cdb, int cdb_length,
		 const uint8_t *data, uint32_t n)
{
	uint8_t h[48] = { 1, flags };
	h[9] = lun; p32(h + 16, itt); p32(h + 20, length); p32(h + 24, c->cmdsn++);
	memcpy(h + 32, cdb, cdb_length);
	add(c, h, data, n);
}
static void start(struct session *c, unsigned i, uint32_t lba)
{
	uint8_t cdb[10] = { o_write ? 0x2a : 0x28 }; uint32_t n = 0, blocks = o_size / BLOCK;
	if (o_tape) { cdb[0] = o_write ? 0x0a : 0x08; p24(cdb + 2, o_size); }
	else { p32(cdb + 2, lba); cdb[7] = blocks >> 8; cdb[8] = blocks; }
	if (o_write && c->immediate) {
		n = o_size < c->segment ? o_size : c->segment;
		if (n > c->firstburst) n = c->firstburst;
	}
	slots[i] = (struct slot){ c->itt++ << 8 | i, n, 1 };
	scsi(c, slots[i].itt, o_write ? 0xa0 : 0xc0, o_size, cdb, sizeof cdb, pattern, n);
}
/* 11.8: answer an R2T with a sequence of Data-Out PDUs */
static void data_out(struct session *c, const uint8_t *r2t)
{
	uint32_t offset = g32(r2t + 40), left = g32(r2t + 44), sn = 0; uint8_t keep[48]; memcpy(keep, r2t, 48);
	while (left) {
		uint32_t n = left < c->segment ? left : c->segment; uint8_t h[48] = { 5, n == left ? 0x80 : 0 };
		memcpy(h + 8, keep + 8, 8); memcpy(h + 16, keep + 16, 8); p32(h + 36, sn++); p32(h + 40, offset);
		add(c, h, pattern, n);
		offset += n; left -= n;
	}
}
/* Take one PDU. Returns the slot whose command is finished, or -1. */
static int take(struct session *c)
{
	uint8_t *d, *p; uint32_t n; p = next(c, &d, &n); uint32_t itt = g32(p + 16);
	switch (p[0]) {
	case 0x25: if (!(p[1] & 1)) return -1; /* 11.7.3: status may come with the data */
		__attribute__((fallthrough));
	case 0x21: if (p[3]) die("status %#x, sense key %x, %02x/%02x", p[3], n > 4 ? d[4] : 0, n > 14 ? d[14] : 0, n > 15 ? d[15] : 0);
		return itt & 255;
	case 0x31: data_out(c, p); return -1;
	case 0x20:
		if (g32(p + 20) != ~0u) {
			uint8_t h[48] = { 0x40, 0x80 };
			memcpy(h + 8, p + 8, 8); p32(h + 16, ~0u); memcpy(h + 20, p + 20, 4); p32(h + 24, c->cmdsn); add(c, h, NULL, 0);
		}
		return -1;
	default: die("opcode %#x was not expected", p[0]);
	}
	return -1;
}
/* One command, until it succeeds: the unit attentions of a new session are taken first. It reads 8 bytes at most. */
static void command(struct session *c, const uint8_t *cdb, int cdb_length, uint8_t *answer, const uint8_t *data, uint32_t m)
{
	uint8_t *d, *p; uint32_t n; int tries;
	for (tries = 0; tries < 8; tries++) {
		scsi(c, c->itt++, answer ? 0xc0 : m ? 0xa0 : 0x80, answer ? 8 : m, cdb, cdb_length, data, m); flush_out(c);
		do {
			p = next(c, &d, &n);
			if (p[0] == 0x25 && n == 8) memcpy(answer, d, 8);
		} while (p[0] != 0x21 && (p[0] != 0x25 || !(p[1] & 1)));
		if (!p[3]) return;
	}
	die("the command %02xh fails", cdb[0]);
}
/* How many places there are. */
static uint64_t capacity(struct session *c)
{
	uint8_t cdb[10] = { 0x25 }, answer[8] = { 0 };
	command(c, cdb, sizeof cdb, answer, NULL, 0);
	if (g32(answer + 4) != BLOCK) die("blocks of %u bytes", g32(answer + 4));
	return ((uint64_t)g32(answer) + 1) * BLOCK / o_size;
}
/* To its beginning, and emptied if that was asked for. */
static void prepare(struct session *c, uint64_t places)
{
	uint8_t rewind[6] = { 0x01 }, erase[6] = { 0x19 }, unmap[10] = { 0x42, 0, 0, 0, 0, 0, 0, 0, 24 };
	uint8_t range[24] = { 0, 22, 0, 16 }; uint64_t at, blocks = places * (o_size / BLOCK), most = 1 << 16;
	if (o_tape) command(c, rewind, sizeof rewind, NULL, NULL, 0);
	if (o_empty && o_tape) command(c, erase, sizeof erase, NULL, NULL, 0);
	for (at = 0; o_empty && !o_tape && at < blocks; at += most) {
		p32(range + 12, at); p32(range + 16, blocks - at < most ? blocks - at : most);
		command(c, unmap, sizeof unmap, NULL, range, sizeof range);
	}
}
static void run(struct session *c)
{
	uint64_t places = o_tape ? 1 : capacity(c), at = 0, begun = 0, state = 88172645463325252ull ^ getpid(), operations = 0;
	unsigned flying = 0, i; char go; double t0, end;
	prepare(c, places);
	if (o_wait) { puts("ready"); fflush(stdout); if (read(0, &go, 1) != 1) die("nobody said go"); }
	t0 = now(); end = t0 + o_seconds;
	for (int stop = 0; !stop || flying; ) {
		for (i = 0; !stop && i < o_depth && begun < o_count; i++) {
			if (slots[i].busy || (int32_t)(c->maxcmdsn - c->cmdsn) < 0) continue;
			state ^= state << 13; state ^= state >> 7; state ^= state << 17;   /* xorshift64 */
			start(c, i, (o_random ? state : at++) % places * (o_size / BLOCK)); flying++; begun++;
		}
		flush_out(c);
		do {
			int done = take(c);
			if (done >= 0) { slots[done].busy = 0; flying--; operations++; }
		} while (c->lo < c->hi && flying && c->hi - c->lo >= 48 + g24(c->in + c->lo + 5) + 12);
		flush_out(c);
		stop = begun == o_count || now() >= end;
	}
	printf("%llu operations in %.3f seconds\n", (unsigned long long)operations, now() - t0);
}
int main(int argc, char **argv)
{
	int o;
	while ((o = getopt(argc, argv, "wrDgTed:s:n:t:i:")) != -1) switch (o) {
		case 'w': o_write = 1; break; case 'r': o_random = 1; break; case 'D': o_digest = 1; break;
		case 'g': o_wait = 1; break; case 'T': o_tape = 1; break; case 'e': o_empty = 1; break;
		case 'n': o_count = strtoull(optarg, NULL, 0); break;
		case 'd': o_depth = atoi(optarg); break; case 's': o_size = atoi(optarg); break;
		case 't': o_seconds = atoi(optarg); break; case 'i': o_idle = atoi(optarg); break;
		default: return 2; }
	if (optind != argc - 1 || sscanf(argv[optind], "iscsi://%255[^:]:%d/%255[^/]/%u", host, &port, target, &lun) != 4
	    || o_depth < 1 || o_depth > DEPTH || o_size % BLOCK || !o_size || o_size > SEGMENT) {
		fprintf(stderr, "usage: load [-wrDgTe] [-d depth] [-s bytes] [-n count] [-t seconds] [-i sessions] iscsi://HOST:PORT/IQN/LUN\n");
		return 2;
	}
	pattern = malloc(SEGMENT); memset(pattern, 0xa5, SEGMENT);
	if (o_idle) {
		for (unsigned i = 0; i < o_idle; i++) {
			struct session *c = calloc(1, sizeof *c); login(c, i); capacity(c);
		}
		printf("%u sessions\n", o_idle); fflush(stdout);
		pause();
		return 0;
	}
	struct session c = { 0 }; login(&c, 0); run(&c);
	return 0;
}
