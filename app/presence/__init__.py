"""Presence: leases in Redis, the sockets that each pod asserts, and the changes that they cause.

Promises: presence is right in the end, whichever pod dies and whatever Redis forgets; a user goes offline once,
when their last socket is gone. Never: a count that is only added to; a send that waits for presence.
"""
