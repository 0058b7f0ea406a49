"""Messages on their way in: the send queue, the writer that stores batches, the event log, and what a view shows.

Promises: what one sender sends to one conversation is stored in that order, once for each client message id,
and every submission is answered exactly once. Never: an acknowledgement before the commit.
"""
