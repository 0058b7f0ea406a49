"""A pod from its ports to its drain: `wiring` is the only place that builds things, `server` runs them.

Promises: a process that stops moves its clients first and loses nothing that it acknowledged. Never: a hook
assigned after construction; a rule of the product.
"""
