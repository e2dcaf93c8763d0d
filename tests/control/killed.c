/* Kills the process at its n-th call that changes a file or says something to another process: LD_PRELOAD for tests.
 *
 * KILLED_COUNTER names a file with two longs, mapped by the test too: how many calls there have been since it was armed, and at
 * which to die. Only the process whose number the third has counts; 0: none does.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

static volatile long *counter; /* calls, the last of them, process */

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("KILLED_COUNTER");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    counter = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (counter == MAP_FAILED)
        counter = NULL;
}

static void step(void)
{
    if (counter && counter[2] == getpid() && __sync_add_and_fetch(&counter[0], 1) == counter[1])
        raise(SIGKILL);
}

#define WRAP(type, name, parameters, arguments)              \
    type name parameters                                     \
    {                                                        \
        static type(*next) parameters;                       \
        if (!next)                                           \
            next = (type(*) parameters)dlsym(RTLD_NEXT, #name); \
        step();                                              \
        return next arguments;                               \
    }

WRAP(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size))
WRAP(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
WRAP(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at))
WRAP(int, fsync, (int fd), (fd))
WRAP(int, fdatasync, (int fd), (fd))
WRAP(int, ftruncate, (int fd, off_t size), (fd, size))
WRAP(int, ftruncate64, (int fd, off64_t size), (fd, size))
WRAP(int, truncate, (const char *path, off_t size), (path, size))
WRAP(int, truncate64, (const char *path, off64_t size), (path, size))
WRAP(int, unlink, (const char *path), (path))
WRAP(int, rename, (const char *from, const char *to), (from, to))
WRAP(ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags), (fd, message, flags))
WRAP(ssize_t, send, (int fd, const void *data, size_t size, int flags), (fd, data, size, flags))
