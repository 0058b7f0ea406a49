/* Clients who talk in conversations, and a check that every message came to every socket of its conversation, once.
 *
 * The first message of each conversation goes alone: its seq is where every socket of the room begins. */
#include "load.h"

#include <stdio.h>
#include <string.h>

enum { WINDOW = 64, MOST_IN_FLIGHT = 64, PRIME_SECONDS = 60, SETTLE_SECONDS = 60 };

typedef struct {
    int first, size;   /* its clients in the plan, which stand together */
    bool has_sender;
    long first_seq;    /* 0 until the first message came */
    long acknowledged; /* messages, the first one included */
} Room;

typedef struct {
    int room;
    long contiguous; /* every message up to this seq came */
    uint64_t ahead;  /* which of the following ones came: bit 0 stands for contiguous + 1 */
    int in_flight;
    uint64_t sent_at[MOST_IN_FLIGHT]; /* 0 while nothing is sent under this number */
} Socket;

static const char message[] = "Shall we meet at the usual place at half past seven? I bring both";
static const char news[] = "[\"message:new\",";

static const Plan *plan;
static Connection *connections;
static Socket *sockets;
static Room *all_rooms;
static int room_count, connected, primed;
static bool sends, measures;
static uint64_t run_id, sent_count;
static Result result;

static void send_message(Connection *connection, int id)
{
    char packet[1024];
    Socket *socket = &sockets[connection->index];
    int length = snprintf(packet, sizeof packet,
                          "42%d[\"message:send\",{\"conversationId\":\"%s\",\"content\":\"%s\","
                          "\"clientMessageId\":\"%lx-%lx\"}]",
                          id, plan->clients[connection->index].conversation, message, run_id, ++sent_count);
    socket->sent_at[id] = now();
    socket->in_flight++;
    socket_emit(connection, packet, (size_t)length);
}

static void on_connected(Connection *connection)
{
    (void)connection;
    connected++;
}

static void on_event(Connection *connection, char *json, size_t length)
{
    if (length < sizeof news || memcmp(json, news, sizeof news - 1) != 0)
        return; /* presence, and the like */
    long seq = seq_in(json, length);
    Socket *socket = &sockets[connection->index];
    Room *room = &all_rooms[socket->room];
    if (!socket->contiguous) {
        if (room->first_seq && room->first_seq != seq)
            fault("client %d began with seq %ld, others with %ld", connection->index, seq, room->first_seq);
        room->first_seq = socket->contiguous = seq;
        primed++;
        return;
    }
    long place = seq - socket->contiguous - 1;
    if (place < 0 || (place < WINDOW && socket->ahead >> place & 1))
        fault("client %d was told seq %ld twice", connection->index, seq);
    if (place >= WINDOW)
        fault("client %d was told seq %ld and not yet %ld", connection->index, seq, socket->contiguous + 1);
    result.late += (socket->ahead >> place) != 0;
    socket->ahead |= 1ull << place;
    for (; socket->ahead & 1; socket->ahead >>= 1)
        socket->contiguous++;
    result.delivered += measures;
}

static void on_acknowledged(Connection *connection, int id, char *json, size_t length)
{
    static const char ok[] = "[{\"ok\":true";
    Socket *socket = &sockets[connection->index];
    if (length < sizeof ok || memcmp(json, ok, sizeof ok - 1) != 0)
        fault("client %d was answered %.*s", connection->index, (int)(length < 300 ? length : 300), json);
    if (id < 0 || id >= MOST_IN_FLIGHT || !socket->sent_at[id])
        fault("client %d was answered twice under %d", connection->index, id);
    if (measures) {
        result.done++;
        add_latency(&result.latencies, socket->sent_at[id]);
    }
    socket->sent_at[id] = 0;
    socket->in_flight--;
    all_rooms[socket->room].acknowledged++;
    result.stored++;
    if (sends)
        send_message(connection, id);
}

static bool is_sender(int client)
{
    return client % plan->sender_every == 0;
}

static void lay_out(void)
{
    all_rooms = allocate((size_t)plan->count, sizeof *all_rooms);
    sockets = allocate((size_t)plan->count, sizeof *sockets);
    connections = allocate((size_t)plan->count, sizeof *connections);
    for (int client = 0; client < plan->count; client++) {
        const char *conversation = plan->clients[client].conversation;
        if (!client || strcmp(conversation, plan->clients[client - 1].conversation) != 0)
            all_rooms[room_count++].first = client;
        all_rooms[room_count - 1].size++;
        all_rooms[room_count - 1].has_sender |= is_sender(client);
        sockets[client].room = room_count - 1;
    }
}

static int first_sender(const Room *room)
{
    int client = room->first;
    while (!is_sender(client))
        client++;
    return client;
}

static bool is_primed(void)
{
    int expected = 0;
    for (int i = 0; i < room_count; i++)
        expected += all_rooms[i].has_sender ? all_rooms[i].size : 0;
    return primed == expected;
}

static bool is_settled(void)
{
    for (int client = 0; client < plan->count; client++) {
        const Socket *socket = &sockets[client];
        const Room *room = &all_rooms[socket->room];
        if (socket->in_flight || socket->ahead)
            return false;
        if (room->has_sender && socket->contiguous != room->first_seq + room->acknowledged - 1)
            return false;
    }
    return true;
}

void rooms(const Plan *given)
{
    plan = given;
    run_id = now();
    if (plan->in_flight > MOST_IN_FLIGHT)
        fault("at most %d in flight", MOST_IN_FLIGHT);
    lay_out();
    sockets_start(plan, (SocketHandlers){on_connected, on_event, on_acknowledged});
    sockets_open(plan, connections, 0, plan->count, &connected);
    for (int i = 0; i < room_count; i++)
        if (all_rooms[i].has_sender)
            send_message(&connections[first_sender(&all_rooms[i])], 0);
    run_until(is_primed, PRIME_SECONDS, "the first message of each conversation at everyone in it");
    run_until(is_settled, PRIME_SECONDS, "an answer to the first message of each conversation");

    sends = true;
    for (int client = 0; client < plan->count; client++)
        for (int id = 0; is_sender(client) && id < plan->in_flight; id++)
            send_message(&connections[client], id);
    run_for(plan->warm_up);
    measures = true;
    result.began = read_clocks(plan);
    run_for(plan->seconds);
    result.ended = read_clocks(plan);
    measures = sends = false;
    run_until(is_settled, SETTLE_SECONDS, "every message, once, at everyone");
    print_result(&result);
}
