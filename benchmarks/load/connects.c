/* Clients who connect and leave at once, and clients who connect and stay. */
#include "load.h"

#include <stdio.h>

enum { MOST_AT_ONCE = 1024 };

static const Plan *plan;
static int connected, next_client;
static bool measures;
static uint64_t opened_at[MOST_AT_ONCE];
static Connection connections[MOST_AT_ONCE];
static Result result;

static void ignore_event(Connection *connection, char *json, size_t length)
{
    (void)connection, (void)json, (void)length;
}

static void no_acknowledgement(Connection *connection, int id, char *json, size_t length)
{
    (void)json, (void)length;
    fault("client %d was answered under %d and had asked nothing", connection->index, id);
}

static void open_next(Connection *connection)
{
    connection->index = next_client++ % plan->count;
    opened_at[connection - connections] = now();
    socket_open(connection);
}

static void on_connected(Connection *connection)
{
    if (measures) {
        result.done++;
        add_latency(&result.latencies, opened_at[connection - connections]);
    }
    wire_reset(connection);
    open_next(connection);
}

void connects(const Plan *given)
{
    plan = given;
    if (plan->at_once > MOST_AT_ONCE)
        fault("at most %d at once", MOST_AT_ONCE);
    sockets_start(plan, (SocketHandlers){on_connected, ignore_event, no_acknowledgement});
    for (int i = 0; i < plan->at_once; i++)
        open_next(&connections[i]);
    run_for(plan->warm_up);
    measures = true;
    result.began = read_clocks(plan);
    run_for(plan->seconds);
    result.ended = read_clocks(plan);
    print_result(&result);
}

static void count_connected(Connection *connection)
{
    (void)connection;
    connected++;
}

/* The first few connect before memory is looked at, so that what a server loads once is not counted. */
void idle(const Plan *given)
{
    plan = given;
    Connection *all = allocate((size_t)plan->count, sizeof *all);
    sockets_start(plan, (SocketHandlers){count_connected, ignore_event, no_acknowledgement});
    sockets_open(plan, all, 0, plan->kept, &connected);
    run_for(plan->warm_up);
    long before = server_memory(plan);
    sockets_open(plan, all, plan->kept, plan->count, &connected);
    run_for(plan->seconds);
    long after = server_memory(plan);
    printf("{\"kilobytes_per_connection\": %.2f}\n", (double)(after - before) / (plan->count - plan->kept));
}
