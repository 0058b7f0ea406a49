"""What people and the master do: one verb-first function for each, the same for REST and Socket.IO.

Promises: each asks the policy, changes under the conversation's lock, logs the event, commits, then announces
(`changing`). Never: knowledge of a wire; an announcement of what was not committed.
"""
