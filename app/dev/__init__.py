"""`chat-service dev`: embedded PostgreSQL and Valkey, both processes, and a demo master with its page.

Promises: one command, nothing to install beside it, nothing left running after Ctrl-C. Never: part of a
production image.
"""
