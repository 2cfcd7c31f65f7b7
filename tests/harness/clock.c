/* A wall clock that a test can set for one process: loaded before the C library (LD_PRELOAD), it
   adds to the real time what stands in the file STEPBOX_TEST_CLOCK, nanoseconds as 64 bits. The
   monotonic clock is left alone, as it is when somebody sets a machine's clock. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *ahead_ns;

__attribute__((constructor)) static void open_clock(void) {
    const char *path = getenv("STEPBOX_TEST_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *page = file < 0 ? MAP_FAILED : mmap(NULL, 8, PROT_READ, MAP_SHARED, file, 0);
    if (page == MAP_FAILED) abort(); /* A test with the real clock would prove nothing. */
    close(file);
    ahead_ns = page;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int failed = syscall(SYS_clock_gettime, clock, time);
    if (failed || !ahead_ns || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)) return failed;
    int64_t ns = time->tv_nsec + *ahead_ns % 1000000000;
    time->tv_sec += *ahead_ns / 1000000000;
    if (ns < 0) { ns += 1000000000; time->tv_sec -= 1; }
    if (ns >= 1000000000) { ns -= 1000000000; time->tv_sec += 1; }
    time->tv_nsec = ns;
    return 0;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    (void)zone;
    struct timespec now;
    int failed = clock_gettime(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return failed;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
