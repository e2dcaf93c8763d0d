/* Stands between a process and libc's file I/O (LD_PRELOAD), also for code in C as LMDB's is.
 *
 * It counts the calls that touch a file below the directory `interpose_below`, can fail one of them or all from one on,
 * and can write down what each does. tests/pool/interposed.py drives it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum operation { READ, WRITE, SYNC, TRUNCATE, PUNCH };

char interpose_below[PATH_MAX];
long interpose_calls;      /* so far, since this was set to 0 */
long interpose_fail_at;    /* number of the call that fails, from 1 on; 0: none */
long interpose_fail_last;  /* and of the last that does */
int interpose_errno;
int interpose_short;       /* the first of them writes a half instead */
long interpose_struck;     /* calls that have failed */
int interpose_log = -1;    /* descriptor to write down to */

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__)) dlsym(RTLD_NEXT, name)

static ssize_t real_write(int fd, const void *data, size_t length) {
    REAL(ssize_t, "write", int, const void *, size_t);
    return real(fd, data, length);
}

/* The path of a descriptor below the directory, without it; NULL for all others. */
static const char *name_of(int fd, char *path) {
    char link[32] = "/proc/self/fd/";
    char digits[12];
    int count = 0, at = 14;
    size_t prefix = strlen(interpose_below);
    if (!prefix || fd < 0) return NULL;
    do digits[count++] = '0' + fd % 10; while (fd /= 10);
    while (count) link[at++] = digits[--count];
    link[at] = 0;
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < (ssize_t) prefix || memcmp(path, interpose_below, prefix)) return NULL;
    path[length] = 0;
    return path + prefix;
}

/* How a call is to end: 1 as it is, 0 with a half of it, -1 with an error. */
static int verdict(int fd, enum operation what) {
    char path[PATH_MAX];
    int saved = errno;
    const char *name = name_of(fd, path);
    errno = saved;
    if (!name) return 1;
    long number = ++interpose_calls;
    if (!interpose_fail_at || number < interpose_fail_at || number > interpose_fail_last) return 1;
    interpose_struck++;
    if (interpose_short && number == interpose_fail_at) return what == WRITE ? 0 : 1;
    errno = interpose_errno;
    return -1;
}

/* What a call has done: operation, whether it is stable by itself, length of the name, offset, length; name; data. */
static void note(int fd, enum operation what, int64_t offset, int64_t length, const struct iovec *data) {
    char path[PATH_MAX];
    int saved = errno;
    const char *name;
    if (interpose_log >= 0 && (name = name_of(fd, path))) {
        struct { uint8_t what, stable; uint16_t name; uint32_t zero; int64_t offset, length; } head =
            { what, !!(fcntl(fd, F_GETFL) & O_DSYNC), strlen(name), 0, offset, length };
        real_write(interpose_log, &head, sizeof head);
        real_write(interpose_log, name, head.name);
        for (; data && length > 0; data++) {
            size_t piece = data->iov_len < (size_t) length ? data->iov_len : (size_t) length;
            real_write(interpose_log, data->iov_base, piece);
            length -= piece;
        }
    }
    errno = saved;
}

/* A remark of the program itself, between its calls. */
void interpose_mark(const char *text) {
    struct { uint8_t what, stable; uint16_t name; uint32_t zero; int64_t offset, length; } head =
        { 255, 0, strlen(text), 0, 0, 0 };
    if (interpose_log >= 0) {
        real_write(interpose_log, &head, sizeof head);
        real_write(interpose_log, text, head.name);
    }
}

#define WRITES(name, offset_type) \
    ssize_t name(int fd, const void *data, size_t length, offset_type offset) { \
        REAL(ssize_t, #name, int, const void *, size_t, offset_type); \
        int how = verdict(fd, WRITE); \
        if (how < 0) return -1; \
        ssize_t done = real(fd, data, how ? length : length / 2, offset); \
        struct iovec all = { (void *) data, length }; \
        if (done > 0) note(fd, WRITE, offset, done, &all); \
        return done; \
    }
WRITES(pwrite, off_t)
WRITES(pwrite64, off64_t)

ssize_t write(int fd, const void *data, size_t length) {
    int how = verdict(fd, WRITE);
    if (how < 0) return -1;
    off_t offset = interpose_log >= 0 ? lseek(fd, 0, SEEK_CUR) : 0;
    ssize_t done = real_write(fd, data, how ? length : length / 2);
    struct iovec all = { (void *) data, length };
    if (done > 0) note(fd, WRITE, offset, done, &all);
    return done;
}

static ssize_t halved(const struct iovec *data, int count, struct iovec *half) {
    size_t total = 0;
    int kept = 0;
    for (int i = 0; i < count; i++) total += data[i].iov_len;
    total /= 2;
    for (; total && kept < count; kept++) {
        half[kept] = data[kept];
        if (half[kept].iov_len > total) half[kept].iov_len = total;
        total -= half[kept].iov_len;
    }
    return kept;
}

ssize_t writev(int fd, const struct iovec *data, int count) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    struct iovec half[count + 1];
    int how = verdict(fd, WRITE);
    if (how < 0) return -1;
    off_t offset = interpose_log >= 0 ? lseek(fd, 0, SEEK_CUR) : 0;
    ssize_t done = how ? real(fd, data, count) : real(fd, half, halved(data, count, half));
    if (done > 0) note(fd, WRITE, offset, done, data);
    return done;
}

#define VECTORS(name, offset_type) \
    ssize_t name(int fd, const struct iovec *data, int count, offset_type offset) { \
        REAL(ssize_t, #name, int, const struct iovec *, int, offset_type); \
        struct iovec half[count + 1]; \
        int how = verdict(fd, WRITE); \
        if (how < 0) return -1; \
        ssize_t done = how ? real(fd, data, count, offset) : real(fd, half, halved(data, count, half), offset); \
        if (done > 0) note(fd, WRITE, offset, done, data); \
        return done; \
    }
VECTORS(pwritev, off_t)
VECTORS(pwritev64, off64_t)

#define VECTORS_WITH_FLAGS(name, offset_type) \
    ssize_t name(int fd, const struct iovec *data, int count, offset_type offset, int flags) { \
        REAL(ssize_t, #name, int, const struct iovec *, int, offset_type, int); \
        struct iovec half[count + 1]; \
        int how = verdict(fd, WRITE); \
        if (how < 0) return -1; \
        ssize_t done = how ? real(fd, data, count, offset, flags) : real(fd, half, halved(data, count, half), offset, flags); \
        if (done > 0) note(fd, WRITE, offset, done, data); \
        return done; \
    }
VECTORS_WITH_FLAGS(pwritev2, off_t)
VECTORS_WITH_FLAGS(pwritev64v2, off64_t)

#define READS(name, parameters, types, ...) \
    ssize_t name parameters { \
        REAL(ssize_t, #name, types); \
        return verdict(fd, READ) < 0 ? -1 : real(__VA_ARGS__); \
    }
#define TYPES(...) __VA_ARGS__
READS(read, (int fd, void *data, size_t length), TYPES(int, void *, size_t), fd, data, length)
READS(pread, (int fd, void *data, size_t length, off_t offset), TYPES(int, void *, size_t, off_t), fd, data, length, offset)
READS(pread64, (int fd, void *data, size_t length, off64_t offset), TYPES(int, void *, size_t, off64_t), fd, data, length, offset)
READS(preadv, (int fd, const struct iovec *data, int count, off_t offset), TYPES(int, const struct iovec *, int, off_t),
      fd, data, count, offset)
READS(preadv64, (int fd, const struct iovec *data, int count, off64_t offset), TYPES(int, const struct iovec *, int, off64_t),
      fd, data, count, offset)
READS(preadv2, (int fd, const struct iovec *data, int count, off_t offset, int flags),
      TYPES(int, const struct iovec *, int, off_t, int), fd, data, count, offset, flags)
READS(preadv64v2, (int fd, const struct iovec *data, int count, off64_t offset, int flags),
      TYPES(int, const struct iovec *, int, off64_t, int), fd, data, count, offset, flags)

#define SYNCS(name) \
    int name(int fd) { \
        REAL(int, #name, int); \
        if (verdict(fd, SYNC) < 0) return -1; \
        int done = real(fd); \
        if (!done) note(fd, SYNC, 0, 0, NULL); \
        return done; \
    }
SYNCS(fsync)
SYNCS(fdatasync)

#define TRUNCATES(name, type) \
    int name(int fd, type length) { \
        REAL(int, #name, int, type); \
        if (verdict(fd, TRUNCATE) < 0) return -1; \
        int done = real(fd, length); \
        if (!done) note(fd, TRUNCATE, 0, length, NULL); \
        return done; \
    }
TRUNCATES(ftruncate, off_t)
TRUNCATES(ftruncate64, off64_t)

#define ALLOCATES(name, type) \
    int name(int fd, int mode, type offset, type length) { \
        REAL(int, #name, int, int, type, type); \
        if (verdict(fd, PUNCH) < 0) return -1; \
        int done = real(fd, mode, offset, length); \
        if (!done && mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) note(fd, PUNCH, offset, length, NULL); \
        return done; \
    }
ALLOCATES(fallocate, off_t)
ALLOCATES(fallocate64, off64_t)
