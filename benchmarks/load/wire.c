/* Connections over one epoll. */
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 512, READ_SIZE = 1 << 18, PATIENCE_MS = 10 };

static int poller;
static OnBytes on_bytes;
static char *scratch;
static size_t scratch_size;

void wire_start(OnBytes handler)
{
    poller = epoll_create1(0);
    on_bytes = handler;
    scratch_size = READ_SIZE;
    scratch = allocate(scratch_size, 1);
}

static void watch(Connection *connection, int operation)
{
    uint32_t what = EPOLLIN | (connection->waits_for_room ? EPOLLOUT : 0);
    struct epoll_event event = {.events = what, .data.ptr = connection};
    if (epoll_ctl(poller, operation, connection->fd, &event) < 0)
        fault("epoll_ctl: %s", strerror(errno));
}

void wire_connect(Connection *connection, int port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0)
        fault("socket: %s", strerror(errno));
    int yes = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS)
        fault("connect to port %d: %s", port, strerror(errno));
    connection->fd = fd;
    connection->is_upgraded = false;
    connection->waits_for_room = true;
    connection->unread.length = connection->unsent.length = 0;
    watch(connection, EPOLL_CTL_ADD);
}

static void append(Buffer *buffer, const char *bytes, size_t length)
{
    if (buffer->length + length > buffer->capacity) {
        buffer->capacity = (buffer->length + length) * 2;
        buffer->bytes = realloc(buffer->bytes, buffer->capacity);
        if (!buffer->bytes)
            fault("out of memory");
    }
    memcpy(buffer->bytes + buffer->length, bytes, length);
    buffer->length += length;
}

static size_t write_some(Connection *connection, const char *bytes, size_t length)
{
    ssize_t sent = send(connection->fd, bytes, length, MSG_NOSIGNAL);
    if (sent >= 0)
        return (size_t)sent;
    if (errno != EAGAIN)
        fault("client %d: send: %s", connection->index, strerror(errno));
    return 0;
}

void wire_send(Connection *connection, const char *bytes, size_t length)
{
    size_t sent = connection->waits_for_room ? 0 : write_some(connection, bytes, length);
    if (sent == length)
        return;
    append(&connection->unsent, bytes + sent, length - sent);
    if (!connection->waits_for_room) {
        connection->waits_for_room = true;
        watch(connection, EPOLL_CTL_MOD);
    }
}

static void flush(Connection *connection)
{
    Buffer *unsent = &connection->unsent;
    size_t sent = write_some(connection, unsent->bytes, unsent->length);
    memmove(unsent->bytes, unsent->bytes + sent, unsent->length - sent);
    unsent->length -= sent;
    if (!unsent->length) {
        connection->waits_for_room = false;
        watch(connection, EPOLL_CTL_MOD);
    }
}

void wire_reset(Connection *connection)
{
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    setsockopt(connection->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(connection->fd);
    connection->fd = -1;
}

/* All connections read into one block, which stays in the processor's cache; only a rest is kept aside. */
static void take(Connection *connection)
{
    Buffer *unread = &connection->unread;
    size_t rest = unread->length;
    if (rest + READ_SIZE > scratch_size) {
        scratch_size = (rest + READ_SIZE) * 2;
        free(scratch);
        scratch = allocate(scratch_size, 1);
    }
    int fd = connection->fd;
    ssize_t received = recv(fd, scratch + rest, READ_SIZE, 0);
    if (received < 0 && errno == EAGAIN)
        return;
    if (received <= 0)
        fault("client %d: the server closed the connection", connection->index);
    memcpy(scratch, unread->bytes, rest);
    size_t length = rest + (size_t)received;
    size_t used = on_bytes(connection, scratch, length);
    if (connection->fd != fd)
        return; /* closed meanwhile, and perhaps opened anew */
    unread->length = 0;
    append(unread, scratch + used, length - used);
}

void wire_poll(void)
{
    struct epoll_event events[EVENTS];
    int count = epoll_wait(poller, events, EVENTS, PATIENCE_MS);
    for (int i = 0; i < count; i++) {
        Connection *connection = events[i].data.ptr;
        if (events[i].events & EPOLLOUT)
            flush(connection);
        if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
            take(connection);
    }
}
