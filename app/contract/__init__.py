"""The vocabulary of both wires: payload schemas, events, errors, ids, cursors and the bounded JSON codec.

Promises: what REST and Socket.IO take and give is defined here once, validated at the edge, and says the field
that is wrong. Never: a rule of who may do what (that is `identity.policy`), or anything that waits.
"""
