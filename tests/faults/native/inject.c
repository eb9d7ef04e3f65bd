/* Loaded before libc (LD_PRELOAD): makes one call on files below a directory fail, and says so by making a file.
 *
 * ROPEWAY_INJECT_UNDER  the directory; calls on other files pass
 * ROPEWAY_INJECT_KIND   sync (fsync, fdatasync), write (write, pwrite, writev), make (open that creates, mkdir, rename)
 * ROPEWAY_INJECT_AT     which call of that kind, from 1
 * ROPEWAY_INJECT_ERROR  the errno; 0: the call does half of what it was asked for (write only)
 * ROPEWAY_INJECT_EVER   set: every later call of that kind fails as well
 * ROPEWAY_INJECT_MARK   the file that is made when the first call is made to fail */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static atomic_long calls;

static int is_under(const char *path) {
    const char *under = getenv("ROPEWAY_INJECT_UNDER");
    return under && strncmp(path, under, strlen(under)) == 0;
}

/* -1: the call passes; else the errno that it fails with. */
static int fate(const char *kind, const char *path) {
    const char *wanted = getenv("ROPEWAY_INJECT_KIND");
    if (!wanted || strcmp(wanted, kind) != 0 || !is_under(path))
        return -1;
    long call = atomic_fetch_add(&calls, 1) + 1, at = atol(getenv("ROPEWAY_INJECT_AT"));
    if (call < at || (call > at && !getenv("ROPEWAY_INJECT_EVER")))
        return -1;
    if (call == at) {
        int mark = REAL(open)(getenv("ROPEWAY_INJECT_MARK"), O_CREAT | O_WRONLY, 0600);
        if (mark >= 0)
            close(mark);
    }
    return atoi(getenv("ROPEWAY_INJECT_ERROR"));
}

static int fate_of(const char *kind, int file) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return -1;
    path[length] = 0;
    return fate(kind, path);
}

#define FAIL_WITH(error)                                                                                               \
    do {                                                                                                               \
        errno = (error);                                                                                               \
        return -1;                                                                                                     \
    } while (0)

int fsync(int file) {
    int error = fate_of("sync", file);
    if (error > 0)
        FAIL_WITH(error);
    return REAL(fsync)(file);
}

int fdatasync(int file) {
    int error = fate_of("sync", file);
    if (error > 0)
        FAIL_WITH(error);
    return REAL(fdatasync)(file);
}

ssize_t write(int file, const void *bytes, size_t count) {
    int error = fate_of("write", file);
    if (error > 0)
        FAIL_WITH(error);
    return REAL(write)(file, bytes, error == 0 && count > 1 ? count / 2 : count);
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t at) {
    int error = fate_of("write", file);
    if (error > 0)
        FAIL_WITH(error);
    return REAL(pwrite64)(file, bytes, error == 0 && count > 1 ? count / 2 : count, at);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    int error = fate_of("write", file);
    if (error > 0)
        FAIL_WITH(error);
    return REAL(writev)(file, parts, error == 0 && count > 1 ? count / 2 : count);
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    int error = flags & O_CREAT ? fate("make", path) : -1;
    if (error > 0)
        FAIL_WITH(error);
    return REAL(open64)(path, flags, mode);
}

int mkdir(const char *path, mode_t mode) {
    int error = fate("make", path);
    if (error > 0)
        FAIL_WITH(error);
    return REAL(mkdir)(path, mode);
}

int rename(const char *from, const char *to) {
    int error = fate("make", to);
    if (error > 0)
        FAIL_WITH(error);
    return REAL(rename)(from, to);
}
