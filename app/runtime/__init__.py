"""What every process needs around its work: supervised loops, batching, ports, signals, bounds of connections.

Promises: a background loop that fails is logged, counted and started again; a batch is bounded and answers each
of its callers. Never: a task that nobody keeps; knowledge of messages, PostgreSQL or Redis.
"""
