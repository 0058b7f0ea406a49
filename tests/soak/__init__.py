"""A soak test: everything at once under random faults, and a checker for every promise.

World runs the processes and what stands between them; faults break it; people work in it as the contract tells
clients to; the journal keeps what was seen; checks are pure functions over that. A violation is never repaired or
retried: it is reported with the logs of all processes.
"""
