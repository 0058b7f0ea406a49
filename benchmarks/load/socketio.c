/* Socket.IO 5 over Engine.IO 4 over WebSocket (RFC 6455), the client's side, without extensions. */
#define _GNU_SOURCE
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT = 1, FINAL = 0x80, MASKED = 0x80, MOST = 8192, CONNECT_SECONDS = 240 };

static const char upgrade[] = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n"
                              "Host: 127.0.0.1:%d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                              "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
static const Plan *plan;
static SocketHandlers handlers;

void socket_open(Connection *connection)
{
    int port = plan->clients[connection->index].port;
    char request[512];
    int length = snprintf(request, sizeof request, upgrade, port);
    wire_connect(connection, port);
    wire_send(connection, request, (size_t)length);
}

void socket_emit(Connection *connection, const char *packet, size_t length)
{
    static const unsigned char mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    char frame[MOST + 8];
    size_t head = 2;
    if (length > MOST)
        fault("a packet of %zu bytes is longer than the clients send", length);
    frame[0] = (char)(FINAL | TEXT);
    frame[1] = (char)(MASKED | (length < 126 ? length : 126));
    if (length >= 126) {
        frame[2] = (char)(length >> 8);
        frame[3] = (char)length;
        head = 4;
    }
    memcpy(frame + head, mask, sizeof mask);
    head += sizeof mask;
    for (size_t i = 0; i < length; i++)
        frame[head + i] = (char)(packet[i] ^ mask[i & 3]);
    wire_send(connection, frame, head + length);
}

static void ask_for_namespace(Connection *connection)
{
    char packet[MOST];
    int length = snprintf(packet, sizeof packet, "40{\"token\":\"%s\"}", plan->clients[connection->index].token);
    socket_emit(connection, packet, (size_t)length);
}

static void on_packet(Connection *connection, char *packet, size_t length)
{
    if (length == 1 && packet[0] == '2')
        socket_emit(connection, "3", 1);
    else if (packet[0] == '0')
        ask_for_namespace(connection);
    else if (packet[0] == '1')
        fault("client %d: the server closed the connection", connection->index);
    else if (length > 1 && packet[0] == '4' && packet[1] == '0')
        handlers.connected(connection);
    else if (length > 1 && packet[0] == '4' && packet[1] == '2')
        handlers.event(connection, packet + 2, length - 2);
    else if (length > 1 && packet[0] == '4' && packet[1] == '3') {
        char *json;
        long id = strtol(packet + 2, &json, 10);
        handlers.acknowledged(connection, (int)id, json, length - (size_t)(json - packet));
    } else
        fault("client %d: was told %.*s", connection->index, (int)(length < 200 ? length : 200), packet);
}

static size_t on_bytes(Connection *connection, char *bytes, size_t length)
{
    size_t used = 0;
    if (!connection->is_upgraded) {
        char *end = memmem(bytes, length, "\r\n\r\n", 4);
        if (!end)
            return 0;
        if (memcmp(bytes, "HTTP/1.1 101", 12) != 0)
            fault("client %d: no WebSocket: %.40s", connection->index, bytes);
        connection->is_upgraded = true;
        used = (size_t)(end + 4 - bytes);
    }
    int fd = connection->fd;
    while (length - used >= 2) {
        const unsigned char *frame = (unsigned char *)bytes + used;
        size_t size = frame[1] & 127, head = size < 126 ? 2 : size == 126 ? 4 : 10;
        if (length - used < head)
            break;
        if (head > 2) {
            size = 0;
            for (size_t i = 2; i < head; i++)
                size = size << 8 | frame[i];
        }
        if (length - used - head < size)
            break;
        if (frame[0] != (FINAL | TEXT))
            fault("client %d: a frame that begins with %#x", connection->index, frame[0]);
        on_packet(connection, bytes + used + head, size);
        if (connection->fd != fd)
            break;
        used += head + size;
    }
    return used;
}

void sockets_start(const Plan *of, SocketHandlers with)
{
    plan = of;
    handlers = with;
    wire_start(on_bytes);
}

void sockets_open(const Plan *of, Connection *all, int from, int to, const int *connected)
{
    uint64_t end = now() + CONNECT_SECONDS * 1000000000ull;
    int opened = from;
    while (*connected < to) {
        while (opened < to && opened - *connected < of->at_once) {
            all[opened].index = opened;
            socket_open(&all[opened++]);
        }
        wire_poll();
        if (now() > end)
            fault("%d of %d sockets were connected within %d s", *connected, to, CONNECT_SECONDS);
    }
}
