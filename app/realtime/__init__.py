"""Socket.IO for browsers: an HTTP listener, WebSockets, Engine.IO sessions, and Socket.IO itself on top.

Promises: events of a socket are handled and acknowledged in order; a client that reads slowly or floods costs
itself alone. Never: work of strangers before work of those who are let in; an unbounded queue.
"""
