"""Webhooks: the outbox written with each change, and the worker that claims, signs and posts it.

Promises: every change is posted at least once, in order for each conversation, signed, with the same
`webhook-id` when it is retried. Never: an event without its change or a change without its event; a receiver
that slows another down.
"""
