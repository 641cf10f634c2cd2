// A library to be preloaded: the clock of the wall stands at a day before 1970.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

int clock_gettime(clockid_t id, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) {
        *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    }
    int result = real(id, time);
    if (!result && id == CLOCK_REALTIME) {
        time->tv_sec = -86400;
    }
    return result;
}
