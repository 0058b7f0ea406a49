"""Redis: the batched client, pub/sub between pods, Lua scripts, the addresses of pods, error classes.

Promises: any error reply and any failure of the transport counts as *away* and never fails a send; a payload
that cannot be read ends nothing. Never: the only copy of something that was acknowledged.
"""
