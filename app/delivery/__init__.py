"""Delivery of committed changes to the sockets that may receive them: fan-out, rooms, membership, repair.

Promises: each socket receives the changes of a conversation in `seq` order, without gap or repetition, from the
moment it joined until the moment it left; what pub/sub lost is read again from the event log. Never: a change
that is not committed.
"""
