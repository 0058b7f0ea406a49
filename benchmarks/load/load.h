/* The load generator: many clients of Socket.IO or REST in one thread, cheap enough never to be the bottleneck.
 *
 * main.c reads the arguments, wire.c has the connections, socketio.c the protocol on top of them, and rooms.c,
 * connects.c and posts.c are what clients do. Whatever should not happen ends the program with exit code 1.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One client of the plan. */
typedef struct {
    int port;
    const char *token;
    const char *conversation;
} Client;

typedef struct {
    Client *clients;
    int count;
    double warm_up, seconds;
    int in_flight;    /* requests that a sender has open at once */
    int sender_every; /* every so many clients one sends */
    int at_once;      /* connections that are being made at once */
    int kept;         /* clients that are there before memory is looked at */
    const char *server_pids;
} Plan;

typedef struct {
    char *bytes;
    size_t length, capacity;
} Buffer;

typedef struct {
    int index; /* of its client in the plan */
    int fd;
    bool is_upgraded;
    bool waits_for_room; /* in the kernel's send buffer */
    Buffer unread;       /* the part of a frame or an answer that has come so far */
    Buffer unsent;
} Connection;

/* wire.c */
typedef size_t (*OnBytes)(Connection *, char *bytes, size_t length); /* gives how many it has used */
void wire_start(OnBytes on_bytes);
void wire_connect(Connection *, int port);
void wire_send(Connection *, const char *bytes, size_t length);
void wire_reset(Connection *); /* closes at once, and leaves no port in TIME_WAIT */
void wire_poll(void);

/* socketio.c */
typedef struct {
    void (*connected)(Connection *);
    void (*event)(Connection *, char *json, size_t length);
    void (*acknowledged)(Connection *, int id, char *json, size_t length);
} SocketHandlers;
void sockets_start(const Plan *, SocketHandlers);
void socket_open(Connection *);
void socket_emit(Connection *, const char *packet, size_t length);
/* Opens the clients of a range; `connected` is what the handler has counted, over all ranges together. */
void sockets_open(const Plan *, Connection *all, int from, int to, const int *connected);

/* measure.c */
typedef struct {
    uint64_t at; /* nanoseconds */
    double server_cpu, own_cpu; /* seconds */
} Reading;
typedef struct {
    uint32_t *micros;
    size_t count, capacity;
} Latencies;
/* What was counted between two readings, and over the whole run. */
typedef struct {
    Reading began, ended;
    Latencies latencies;
    uint64_t done, delivered;
    uint64_t stored; /* messages that were acknowledged, from the first to the last */
    uint64_t late;   /* deliveries that one with a higher seq had overtaken */
} Result;
uint64_t now(void); /* nanoseconds */
Reading read_clocks(const Plan *);
long server_memory(const Plan *); /* KiB */
void add_latency(Latencies *, uint64_t began);
void print_result(Result *); /* as one JSON object */
void run_for(double seconds);
void run_until(bool (*over)(void), double within, const char *what);
_Noreturn void fault(const char *format, ...) __attribute__((format(printf, 1, 2)));
void *allocate(size_t count, size_t size);
long seq_in(const char *json, size_t length);

/* What clients do. */
void rooms(const Plan *);
void connects(const Plan *);
void idle(const Plan *);
void posts(const Plan *);
