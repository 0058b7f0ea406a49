"""REST over HTTP for the master and its users: routes, guards, payloads; the master's calls are in `admin`.

Promises: every answer is JSON of the contract, every error has its code and names the field. Never: SQL, Redis,
or a rule that Socket.IO would have to repeat.
"""
