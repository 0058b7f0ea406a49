/* Clocks, memory and the printed result. */
#define _GNU_SOURCE
#include "load.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

void fault(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    vfprintf(stderr, format, values);
    va_end(values);
    fputc('\n', stderr);
    exit(1);
}

void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count, size);
    if (!memory)
        fault("out of memory");
    return memory;
}

/* Sums what a function finds in a file of /proc of each server process. */
static double of_servers(const Plan *plan, const char *file, double (*find)(char *text))
{
    double sum = 0;
    for (const char *pid = plan->server_pids; *pid; pid += strspn(pid, "0123456789"), pid += *pid == ',') {
        char path[64], text[4096];
        snprintf(path, sizeof path, "/proc/%d/%s", atoi(pid), file);
        FILE *opened = fopen(path, "r");
        if (!opened)
            fault("the server process %d is gone", atoi(pid));
        text[fread(text, 1, sizeof text - 1, opened)] = 0;
        fclose(opened);
        sum += find(text);
    }
    return sum;
}

/* User and system time of all threads, which are the 12th and 13th fields after the name, in ticks. */
static double cpu_seconds(char *stat)
{
    unsigned long user = 0, kernel = 0;
    sscanf(strrchr(stat, ')') + 2, "%*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %lu %lu", &user, &kernel);
    return (double)(user + kernel) / (double)sysconf(_SC_CLK_TCK);
}

static double resident(char *status)
{
    char *line = strstr(status, "VmRSS:");
    return line ? atof(line + 6) : 0;
}

long server_memory(const Plan *plan)
{
    return (long)of_servers(plan, "status", resident);
}

Reading read_clocks(const Plan *plan)
{
    struct rusage own;
    getrusage(RUSAGE_SELF, &own);
    double seconds = (double)(own.ru_utime.tv_sec + own.ru_stime.tv_sec);
    double micros = (double)(own.ru_utime.tv_usec + own.ru_stime.tv_usec);
    return (Reading){now(), of_servers(plan, "stat", cpu_seconds), seconds + micros / 1e6};
}

void run_for(double seconds)
{
    for (uint64_t end = now() + (uint64_t)(seconds * 1e9); now() < end;)
        wire_poll();
}

void run_until(bool (*over)(void), double within, const char *what)
{
    for (uint64_t end = now() + (uint64_t)(within * 1e9); !over(); wire_poll())
        if (now() > end)
            fault("%s: not within %.0f s", what, within);
}

void add_latency(Latencies *all, uint64_t began)
{
    if (all->count == all->capacity) {
        all->capacity = all->capacity ? all->capacity * 2 : 1 << 16;
        all->micros = realloc(all->micros, all->capacity * sizeof *all->micros);
        if (!all->micros)
            fault("out of memory");
    }
    all->micros[all->count++] = (uint32_t)((now() - began) / 1000);
}

static int ascending(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

static double percentile(const Latencies *all, size_t percent)
{
    return all->count ? all->micros[(all->count - 1) * percent / 100] / 1e3 : 0;
}

void print_result(Result *result)
{
    Latencies *latencies = &result->latencies;
    double seconds = (double)(result->ended.at - result->began.at) / 1e9;
    qsort(latencies->micros, latencies->count, sizeof *latencies->micros, ascending);
    printf("{\"per_second\": %.1f, \"delivered_per_second\": %.1f, ", (double)result->done / seconds,
           (double)result->delivered / seconds);
    printf("\"p50_ms\": %.2f, \"p99_ms\": %.2f, ", percentile(latencies, 50), percentile(latencies, 99));
    printf("\"server_cpu\": %.4f, ", (result->ended.server_cpu - result->began.server_cpu) / seconds);
    printf("\"own_cpu\": %.4f, ", (result->ended.own_cpu - result->began.own_cpu) / seconds);
    printf("\"stored\": %lu, \"late\": %lu}\n", result->stored, result->late);
}

/* Both sides write `"seq":` once in a message, without a space after it. */
long seq_in(const char *json, size_t length)
{
    const char *found = memmem(json, length, "\"seq\":", 6);
    long seq = found ? atol(found + 6) : 0;
    if (seq < 1)
        fault("no seq in %.*s", (int)(length < 300 ? length : 300), json);
    return seq;
}
