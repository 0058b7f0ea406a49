"""Settings: what the environment may say, read and checked once when a process starts.

Promises: a process starts with settings that are all valid, or says which is not and why, naming the variable.
Never: a secret in a log line, an error or a `repr`; reading the environment anywhere else.
"""
