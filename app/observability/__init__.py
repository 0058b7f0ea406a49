"""Logs, metrics and traces, and how each is given out: JSON lines, Prometheus, OTLP.

Promises: measuring never fails a request, and costs nothing worth measuring while it is off. Never: a secret, a
message's content or a token in any of them; a label whose values clients can make up.
"""
