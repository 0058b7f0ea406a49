"""Redis: the batched connection, pub/sub between pods, the addresses of pods, error classes.

Promises: any error reply and any failure of the transport counts as *away* and never fails a send; a payload
that cannot be read ends nothing. Never: the only copy of something that was acknowledged.
"""
