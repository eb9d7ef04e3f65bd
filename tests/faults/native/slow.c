// A disk on which a sync takes long: loaded before a program, it has each fdatasync take 0.8 s more.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>

int fdatasync(int file) {
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    usleep(800000);
    return next(file);
}
