"""Socket.IO (protocol 5): packets, the default namespace, events, acknowledgements. Only here is it known."""
