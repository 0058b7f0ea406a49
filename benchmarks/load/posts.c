/* Clients of REST who each post one message after the other, on a connection that they keep. */
#define _GNU_SOURCE
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SETTLE_SECONDS = 60 };

typedef struct {
    uint64_t sent_at;
    long seq; /* of the last answer; each client has a conversation of its own, so the next one has the next */
    bool is_busy;
} Poster;

static const char body[] = "{\"content\":\"Shall we meet at the usual place at half past seven? I bring both\","
                           "\"clientMessageId\":\"%016lx-%08lx\"}";
static const char request[] = "POST /api/conversations/%s/messages HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                              "Authorization: Bearer %s\r\nContent-Type: application/json\r\n"
                              "Content-Length: %d\r\n\r\n%s";
static const Plan *plan;
static Poster *posters;
static bool sends, measures;
static uint64_t run_id, sent_count;
static Result result;

static void post(Connection *connection)
{
    char json[256], text[4096];
    const Client *client = &plan->clients[connection->index];
    Poster *poster = &posters[connection->index];
    int size = snprintf(json, sizeof json, body, run_id, ++sent_count);
    int length = snprintf(text, sizeof text, request, client->conversation, client->token, size, json);
    if (length >= (int)sizeof text)
        fault("client %d: the request is too long", connection->index);
    poster->sent_at = now();
    poster->is_busy = true;
    wire_send(connection, text, (size_t)length);
}

static void on_answer(Connection *connection, const char *json, size_t length)
{
    Poster *poster = &posters[connection->index];
    long seq = seq_in(json, length);
    if (poster->seq && seq != poster->seq + 1)
        fault("client %d was given seq %ld after %ld", connection->index, seq, poster->seq);
    poster->seq = seq;
    poster->is_busy = false;
    result.stored++;
    if (measures) {
        result.done++;
        add_latency(&result.latencies, poster->sent_at);
    }
    if (sends)
        post(connection);
}

static size_t on_bytes(Connection *connection, char *bytes, size_t length)
{
    char *end = memmem(bytes, length, "\r\n\r\n", 4);
    if (!end)
        return 0;
    *end = 0;
    char *size = strcasestr(bytes, "\r\nContent-Length:");
    if (strncmp(bytes, "HTTP/1.1 201", 12) != 0 || !size)
        fault("client %d was answered %s", connection->index, bytes);
    *end = '\r';
    size_t head = (size_t)(end + 4 - bytes), content = strtoul(size + 17, NULL, 10);
    if (length < head + content)
        return 0;
    on_answer(connection, end + 4, content);
    return head + content;
}

static bool is_settled(void)
{
    for (int client = 0; client < plan->count; client++)
        if (posters[client].is_busy)
            return false;
    return true;
}

void posts(const Plan *given)
{
    plan = given;
    run_id = now();
    posters = allocate((size_t)plan->count, sizeof *posters);
    Connection *connections = allocate((size_t)plan->count, sizeof *connections);
    wire_start(on_bytes);
    sends = true;
    for (int client = 0; client < plan->count; client++) {
        connections[client].index = client;
        wire_connect(&connections[client], plan->clients[client].port);
        post(&connections[client]);
    }
    run_for(plan->warm_up);
    measures = true;
    result.began = read_clocks(plan);
    run_for(plan->seconds);
    result.ended = read_clocks(plan);
    measures = sends = false;
    run_until(is_settled, SETTLE_SECONDS, "an answer to every request");
    print_result(&result);
}
