"""WebSockets (RFC 6455): frames, and the connection that reads and writes them."""
