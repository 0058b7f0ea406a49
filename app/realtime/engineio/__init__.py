"""Engine.IO sessions (protocol 4), over long polling or a WebSocket: opening, upgrade, inbox, heartbeat, end.

An engine hands messages to its receiver; it knows nothing of the protocol that sessions carry.
"""
