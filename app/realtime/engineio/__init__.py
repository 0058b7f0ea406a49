"""Engine.IO sessions (protocol 4), over long polling or a WebSocket: opening, upgrade, heartbeat, end."""
